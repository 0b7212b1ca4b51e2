"""What a transformer is asked about a batch of latents: noisy clips, and the velocity that it should give."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import FrameTimes, LatentMask, Latents, Rng, TextMask, TextStates
from mobile_video_jax.diffusion.path import flow_matching_loss, interpolate, velocity_target
from mobile_video_jax.train.stage import Batch


class Noised(NamedTuple):
    """The network's `inputs`, the velocity `target`, and the places that count, None where all do."""

    inputs: tuple[Any, ...]
    target: Latents
    counts: LatentMask | None

    def errors(self, velocity: Latents) -> Float[Array, "b"]:
        """The flow-matching loss of each clip, over the places that are neither padding nor given (at time 0)."""
        return flow_matching_loss(velocity, self.target, self.counts)


def noised(batch: Batch, t: FrameTimes, text: TextStates, text_mask: TextMask, noise_rng: Rng) -> Noised:
    """The batch's latents at times t, with noise of their own."""
    x0, mask = batch["latents"], batch.get("latent_mask")
    noise = jax.random.normal(noise_rng, x0.shape)
    counts = mask
    if t.ndim == 2:
        asked = jnp.broadcast_to(t[:, :, None, None] > 0, x0.shape[:4])
        counts = asked if mask is None else asked & mask
    return Noised((interpolate(x0, noise, t), t, text, text_mask, mask), velocity_target(x0, noise), counts)


def goes_on(batch: Batch) -> Bool[Array, "b"]:
    """Which clips have a second latent frame: an image gives nothing to go on to."""
    mask = batch.get("latent_mask")
    count = batch["latents"].shape[0]
    if batch["latents"].shape[1] == 1:
        return jnp.zeros(count, bool)
    return jnp.ones(count, bool) if mask is None else mask[:, 1, 0, 0]
