"""A flow-matching batch: noisy latents x_t, times t and the velocity target."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import FrameTimes, LatentMask, Latents, Rng, TextMask, TextStates
from mobile_video_jax.diffusion.path import flow_matching_loss, interpolate, velocity_target
from mobile_video_jax.train.stage import Batch


class NoisyBatch(NamedTuple):
    """The network's `inputs`, the velocity `target`, and `mask`, the positions that the loss is over (None: all)."""

    inputs: tuple[Any, ...]
    target: Latents
    mask: LatentMask | None

    def errors(self, velocity: Latents) -> Float[Array, "b"]:
        """The flow-matching loss of each clip, over positions that are neither padding nor conditioning frames."""
        return flow_matching_loss(velocity, self.target, self.mask)


def noisy_batch(batch: Batch, t: FrameTimes, text: TextStates, text_mask: TextMask, rng: Rng) -> NoisyBatch:
    """The batch's latents at times t, with noise of the key; a frame at time 0 is a conditioning frame."""
    x0, mask = batch["latents"], batch.get("latent_mask")
    noise = jax.random.normal(rng, x0.shape)
    loss_mask = mask
    if t.ndim == 2:
        is_noisy = jnp.broadcast_to(t[:, :, None, None] > 0, x0.shape[:4])
        loss_mask = is_noisy if mask is None else is_noisy & mask
    return NoisyBatch((interpolate(x0, noise, t), t, text, text_mask, mask), velocity_target(x0, noise), loss_mask)


def has_later_frames(batch: Batch) -> Bool[Array, "b"]:
    """True for clips with a second latent frame, which the first can be the conditioning frame of."""
    mask = batch.get("latent_mask")
    count = batch["latents"].shape[0]
    if batch["latents"].shape[1] == 1:
        return jnp.zeros(count, bool)
    return jnp.ones(count, bool) if mask is None else mask[:, 1, 0, 0]
