"""Distribution matching distillation: towards where the teacher sees clips, away from where they are."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import LatentMask, Latents
from mobile_video_jax.distill.distances import mean_square

SMALLEST = 1e-3  # keeps the scale finite where a teacher agrees with the student in all


def matching_direction(x0: Latents, real: Latents, fake: Latents, places: LatentMask | None = None) -> Latents:
    """(x0_fake - x0_real) / mean |x0 - x0_real|, along which the divergence from the teacher's distribution grows.

    DMD (arXiv 2311.18828). `real` and `fake` are x0 predictions from one re-noised clip, by the
    teacher and by a critic that knows the student's clips; on the straight path their difference is that of both
    scores but for the factor t^2 / (1 - t), a weight of times.
    """
    where = None if places is None else places[..., None]
    error = jnp.mean(jnp.abs(x0 - real), axis=(1, 2, 3, 4), keepdims=True, where=where)
    return (fake - real) / jnp.maximum(error, SMALLEST)


def matching_loss(x0: Latents, direction: Latents, places: LatentMask | None = None) -> Float[Array, "b"]:
    """Half the mean of (x0 - (x0 - direction))^2 of each clip, whose gradient in x0 is the direction over its size."""
    return mean_square(x0, jax.lax.stop_gradient(x0 - direction), places) / 2
