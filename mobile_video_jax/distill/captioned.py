"""Real clips with their captions and conditioning frames, and what networks make of noisy versions of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import FrameTimes, LatentMask, Latents, TextMask, TextStates, Times
from mobile_video_jax.diffusion.conditioning import (
    Conditioned,
    condition_on_first_frame,
    frame_times,
    hold_first_frame,
    insert_first_frame,
)
from mobile_video_jax.diffusion.guidance import EmptyCaption, Guidance, guided, null_text
from mobile_video_jax.diffusion.path import Velocity
from mobile_video_jax.distill.projectors import Maps
from mobile_video_jax.nn.attention.kernels import plain_attention

# (parameters, x_t, t, text states, text mask, latent mask) -> velocity, as Denoiser.velocity.
Network = Callable[..., Latents]
# The same arguments -> velocity and feature maps, as Denoiser.velocity_and_maps.
MappedNetwork = Callable[..., tuple[Latents, Maps]]


class CaptionedLatents(NamedTuple):
    """Real clips and their captions. `mask` is False at padding; `empty` is the text state of "no caption", or None.

    Where `conditioned` is True a clip's first latent frame is a conditioning frame; None: no clip has one.
    """

    latents: Latents
    text: TextStates
    text_mask: TextMask
    mask: LatentMask | None = None
    empty: EmptyCaption | None = None
    conditioned: Conditioned | None = None

    def inputs(self, x_t: Latents, t: Times) -> tuple[Latents, FrameTimes, TextStates, TextMask, LatentMask | None]:
        """A network's inputs for these captions, with conditioning frames as they are, at time 0."""
        times: FrameTimes = t
        if self.conditioned is not None:
            x_t = insert_first_frame(x_t, self.latents[:, :1], self.conditioned)
            times = frame_times(t, x_t.shape[1], self.conditioned)
        return x_t, times, self.text, self.text_mask, self.mask

    def velocity(self, network: Network, params: Any, guidance: float = 1.0, *, forward_mode: bool = False) -> Velocity:
        """The network's velocity for these captions and conditioning frames, at parameters `params`.

        With `forward_mode` it has forward-mode derivatives, and no attention kernels.
        """

        def denoise(x_t: Latents, t: FrameTimes, text: TextStates, text_mask: TextMask) -> Latents:
            # Guidance doubles the batch.
            mask = None if self.mask is None else jnp.resize(self.mask, x_t.shape[:4])
            velocity: Latents
            if forward_mode:
                with plain_attention():
                    velocity = network(params, x_t, t, text, text_mask, mask)
            else:
                velocity = _traced(network, params, x_t, t, text, text_mask, mask)
            return velocity

        negative = null_text(self.text, self.text_mask, self.empty)
        if self.conditioned is None:
            return guided(denoise, self.text, self.text_mask, Guidance(guidance), negative)
        conditioned = condition_on_first_frame(denoise, self.conditioned)
        velocity = guided(conditioned, self.text, self.text_mask, Guidance(guidance), negative)
        return hold_first_frame(velocity, self.latents[:, :1], self.conditioned)

    def velocity_and_maps(self, network: MappedNetwork, params: Any, x_t: Latents, t: Times) -> tuple[Latents, Maps]:
        """The network's velocity, without guidance, and its feature maps."""
        velocity, maps = _traced(network, params, *self.inputs(x_t, t))
        if self.conditioned is not None:
            velocity = hold_first_frame(lambda *_: velocity, self.latents[:, :1], self.conditioned)(x_t, t)
        return velocity, maps

    def of_frames(self, frames: slice) -> "CaptionedLatents":
        """Some of the latent frames, without conditioning."""
        mask = None if self.mask is None else self.mask[:, frames]
        return self._replace(latents=self.latents[:, frames], mask=mask, conditioned=None)

    def with_other_captions(self) -> "CaptionedLatents":
        """The clips, each with the caption of the clip before it."""
        return self._replace(text=jnp.roll(self.text, 1, axis=0), text_mask=jnp.roll(self.text_mask, 1, axis=0))


def _call(network: Callable[..., Any], *inputs: Any) -> Any:
    return network(*inputs)


# Traced once for equal networks and shapes however often a loss calls it.
_traced = jax.jit(_call, static_argnums=0)
