"""Features of the U-Net's levels beside its velocity, which distillation compares."""

from typing import Any

from mobile_video_jax.core.arrays import Latents
from mobile_video_jax.nn.clip_ops import Resized
from mobile_video_jax.unet.model import Unet

LevelFeatures = tuple[Resized, ...]  # [b t h w d] of each level on the way up, from the lowest resolution


def velocity_and_maps(unet: Unet, params: Any, *inputs: Any) -> tuple[Latents, LevelFeatures]:
    """Velocity, and the features that each level passes on to the next. `inputs` are those of Unet."""
    velocity, state = unet.apply({"params": params}, *inputs, mutable="intermediates")
    levels = reversed(range(len(unet.config.widths)))
    return velocity, tuple(state["intermediates"][f"level_{i}"][0] for i in levels)
