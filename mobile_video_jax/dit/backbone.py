"""A transformer's first blocks, as features of noisy clips: its own class, its own parameters."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from mobile_video_jax.core.arrays import FrameTimes, LatentMask, Latents, TextMask, TextStates
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.masks import ALL, Masks
from mobile_video_jax.dit.model import BackboneOutput, Dit


class Backbone(Dit):
    """A Dit without its output: the residual stream after the last of its blocks."""

    @nn.compact
    def __call__(  # type: ignore[override]
        self,
        x_t: Latents,
        t: FrameTimes,
        text: TextStates,
        text_mask: TextMask,
        mask: LatentMask | None = None,
        keep: Masks = ALL,
    ) -> BackboneOutput:
        return self.stream(x_t, t, text, text_mask, mask, keep)


def first_blocks(config: DitConfig, count: int) -> Backbone:
    """The trunk of a transformer's first `count` blocks. Raises UserError where it has fewer, or for none."""
    depth = len(config.block_shapes)
    if not 1 <= count <= depth:
        raise UserError(f"a transformer of {depth} blocks has no first {count}: use trunk_blocks from 1 to {depth}")
    return Backbone(
        dataclasses.replace(config, depth=count, blocks=config.blocks[:count], rope_heads=config.rope_heads[:count])
    )


def backbone_params(trunk: Backbone, params: Any) -> Any:
    """The trunk's parameters among those of the whole transformer: the same arrays, or a slice of scanned ones."""
    if not trunk.config.scan:
        return params
    return {**params, "blocks": jax.tree.map(lambda x: x[: trunk.config.depth], params["blocks"])}
