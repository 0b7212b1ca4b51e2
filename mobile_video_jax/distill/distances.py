"""How far a student's clips are from what they should be."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import LatentMask, Latents

# c / sqrt(d) of arXiv 2310.14189, d the number of values; here the distance is over sqrt(d) as well.
HUBER = 0.00054


def mean_square(x: Latents, y: Latents, places: LatentMask | None = None) -> Float[Array, "b"]:
    """The mean squared difference of each clip, over `places` that are no padding."""
    return jnp.mean(jnp.mean((x - y) ** 2, axis=4), axis=(1, 2, 3), where=places)


def pseudo_huber(x: Latents, y: Latents, places: LatentMask | None = None) -> Float[Array, "b"]:
    """sqrt(m + c^2) - c of each clip, m its mean squared difference; clips that are far off weigh less than in m."""
    return jnp.sqrt(mean_square(x, y, places) + HUBER**2) - HUBER
