"""Distances per clip between a student's prediction and its target."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import LatentMask, Latents

# c / sqrt(d) of arXiv 2310.14189, d the number of values; here the distance is over sqrt(d) as well.
HUBER_C = 0.00054


def mean_square(x: Latents, y: Latents, mask: LatentMask | None = None) -> Float[Array, "b"]:
    """Mean squared difference of each clip, over positions where `mask` is True."""
    return jnp.mean(jnp.mean((x - y) ** 2, axis=4), axis=(1, 2, 3), where=mask)


def pseudo_huber(x: Latents, y: Latents, mask: LatentMask | None = None) -> Float[Array, "b"]:
    """sqrt(m + c^2) - c of each clip with mean squared difference m; large errors weigh less than in m."""
    return jnp.sqrt(mean_square(x, y, mask) + HUBER_C**2) - HUBER_C
