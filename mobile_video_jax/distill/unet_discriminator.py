"""The discriminator of a U-Net teacher: its frozen way down, and heads over space and time at places of it."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.distill.config import DiscriminatorConfig
from mobile_video_jax.distill.discriminator import Discriminator
from mobile_video_jax.distill.discriminator_heads import Features, Grid, HeadOutput, Heads
from mobile_video_jax.nn.module import traced_apply
from mobile_video_jax.unet.block import Site
from mobile_video_jax.unet.config import UnetConfig
from mobile_video_jax.unet.features import PlaceFeatures, WayDown
from mobile_video_jax.unet.temporal import TemporalLayers


class UnetHead(nn.Module):
    """Blocks of the U-Net's kind within frames, each with a layer over time behind it, which clips of one frame skip.

    `config` is that of a block: a level without transformer blocks has convolutions alone, over time too.
    """

    level: int
    blocks: int
    config: UnetConfig

    @nn.compact
    def __call__(self, features: PlaceFeatures, grid: Grid) -> HeadOutput:
        x, conditions = features
        kind = "attention1d" if self.config.blocks[self.level] else "conv1d"
        for i in range(self.blocks):
            x = Site(self.level, self.config, name=f"block_{i}")(x, conditions)
            x = TemporalLayers(kind, self.level, self.config, name=f"temporal_{i}")(x, conditions.frame_mask)
        b, _, h, w, width = x.shape
        mask = conditions.frame_mask
        return x.reshape(b, -1, width), None if mask is None else jnp.repeat(mask, h * w, axis=1)


@dataclasses.dataclass(frozen=True)
class UnetDiscriminator(Discriminator):
    """Reads a U-Net's way down (SnapGen-V, arXiv 2412.10494; SF-V, arXiv 2406.04324); taps are its places."""

    backbone: WayDown

    def features(self, teacher: Any, *inputs: Any) -> Features:
        places = traced_apply(self.backbone, teacher, *inputs)
        return tuple(places[tap - 1] for tap in self.taps)


def make_unet_discriminator(teacher: UnetConfig, config: DiscriminatorConfig) -> UnetDiscriminator:
    """Builds the discriminator on a U-Net's way down, with a head at the last place of each level or at each tap.

    Raises UserError for places that the teacher has not, and for settings of a transformer's discriminator.
    """
    places = teacher.down_places
    _check(config, len(places))
    last = {level: number for number, (_, level) in enumerate(places, 1)}
    taps = config.taps or tuple(last.values())
    block = _block_config(teacher, config)
    heads = tuple(UnetHead(places[tap - 1][1], config.head_blocks, block) for tap in taps)
    return UnetDiscriminator(taps, Heads(heads, config.pooling), WayDown(teacher))


def _check(config: DiscriminatorConfig, places: int) -> None:
    if config.taps and max(config.taps) > places:
        raise UserError(
            f"a U-Net of {places} places on its way down has no place {max(config.taps)}: use taps from 1 to {places}"
        )
    if config.trunk_blocks:
        raise UserError("trunk_blocks counts a transformer's blocks: name places of the U-Net with taps")
    if config.head_start == "teacher":
        raise UserError("head_start=teacher takes a transformer's blocks: heads of a U-Net use head_start=fresh")
    if config.pooling == "token":
        raise UserError("the levels of a U-Net have grids of their own: use pooling=clip or pooling=frame")


def _block_config(teacher: UnetConfig, config: DiscriminatorConfig) -> UnetConfig:
    """The teacher's, with one transformer block where a level has any, or none for a head of convolutions."""
    blocks = tuple(int(count > 0 and config.head != "conv") for count in teacher.blocks)
    return dataclasses.replace(teacher, blocks=blocks, temporal=())
