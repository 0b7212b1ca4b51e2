"""Distribution matching distillation (DMD, arXiv 2311.18828): direction and loss."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import LatentMask, Latents
from mobile_video_jax.distill.distances import mean_square

MIN_ERROR = 1e-3  # keeps the scale finite where teacher and student agree everywhere


def matching_direction(x0: Latents, real: Latents, fake: Latents, mask: LatentMask | None = None) -> Latents:
    """(x0_fake - x0_real) / mean |x0 - x0_real|: the gradient of the divergence from the teacher's distribution.

    `real` and `fake` are x0 predictions from one re-noised clip, by the teacher and by a critic trained on the
    student's clips. On the straight path their difference is that of the two scores times t^2 / (1 - t), a weight of
    times. Positions where `mask` is False are ignored.
    """
    where = None if mask is None else mask[..., None]
    error = jnp.mean(jnp.abs(x0 - real), axis=(1, 2, 3, 4), keepdims=True, where=where)
    return (fake - real) / jnp.maximum(error, MIN_ERROR)


def matching_loss(x0: Latents, direction: Latents, mask: LatentMask | None = None) -> Float[Array, "b"]:
    """Loss of each clip whose gradient in x0 is `direction` over the number of values: mean (x0 - target)^2 / 2."""
    return mean_square(x0, jax.lax.stop_gradient(x0 - direction), mask) / 2
