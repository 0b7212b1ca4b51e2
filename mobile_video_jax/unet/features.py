"""Features of the U-Net: of its levels beside its velocity, which distillation compares, and of its way down alone."""

from typing import Any, NamedTuple

import flax.linen as nn

from mobile_video_jax.core.arrays import FrameTimes, LatentMask, Latents, TextMask, TextStates
from mobile_video_jax.nn.clip_ops import Clip, Resized
from mobile_video_jax.unet.block import Conditions
from mobile_video_jax.unet.model import Unet

LevelFeatures = tuple[Resized, ...]  # [b t h w d] of each level on the way up, from the lowest resolution


def velocity_and_maps(unet: Unet, params: Any, *inputs: Any) -> tuple[Latents, LevelFeatures]:
    """Velocity, and the features that each level passes on to the next. `inputs` are those of Unet."""
    velocity, state = unet.apply({"params": params}, *inputs, mutable="intermediates")
    levels = reversed(range(len(unet.config.widths)))
    return velocity, tuple(state["intermediates"][f"level_{i}"][0] for i in levels)


class PlaceFeatures(NamedTuple):
    """What a place passes on, and what the blocks behind it are conditioned on."""

    x: Clip
    conditions: Conditions


class WayDown(Unet):
    """A Unet without its middle and its way up: returns the features behind each place on the way down."""

    @nn.compact
    def __call__(  # type: ignore[override]
        self,
        x_t: Latents,
        t: FrameTimes,
        text: TextStates,
        text_mask: TextMask,
        latent_mask: LatentMask | None = None,
    ) -> tuple[PlaceFeatures, ...]:
        _, skips, conditions = self.way_down(x_t, t, text, text_mask, latent_mask)
        # The first skip is of conv_in, and there is one more of the convolution between two levels.
        places = enumerate(self.config.down_places, 1)
        return tuple(PlaceFeatures(skips[i + level], conditions) for i, (_, level) in places)
