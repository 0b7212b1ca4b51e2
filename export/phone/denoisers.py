"""The phone's form of a denoiser, by the class of its network's config."""

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import nn

from export.phone.dit import PhoneDit
from export.phone.steps import PhoneStep
from export.phone.unet import PhoneUnet
from export.pytorch.dit import Dit
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.unet.config import UnetConfig

LatentShape = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class PhoneForm:
    """One kind of network.

    `module(config, latent_shape, text_width, tiles, step, call)` is the network with random weights at a sampling step
    and a call of a stream, and `largest_ffn(config)` the width and hidden channels of the largest FFN, None where FFNs
    are not cut into tiles.
    """

    module: Callable[[Any, LatentShape, int, int, PhoneStep, str], nn.Module]
    largest_ffn: Callable[[Any], tuple[int, int] | None]


def _dit(config: DitConfig, shape: LatentShape, text_width: int, tiles: int, step: PhoneStep, call: str) -> PhoneDit:
    mirror = Dit(config, shape, text_width)
    return PhoneDit(mirror, [tiles] * len(mirror.blocks), step=step, call=call)


def _unet(config: UnetConfig, shape: LatentShape, text_width: int, tiles: int, step: PhoneStep, call: str) -> PhoneUnet:
    return PhoneUnet(config, shape, text_width)


def _largest_ffn(config: DitConfig) -> tuple[int, int]:
    return config.width, max(block.ffn for block in config.block_shapes)


FORMS: dict[type, PhoneForm] = {
    DitConfig: PhoneForm(_dit, _largest_ffn),
    UnetConfig: PhoneForm(_unet, lambda config: None),
}
