"""Embedding of the diffusion time."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Times


def time_features(t: Times, width: int, *, max_period: float = 10_000.0) -> Float[Array, "b f"]:
    """Cosines and sines of 1000 t at `width` / 2 geometrically spaced frequencies (arXiv 2006.11239).

    Times run over [0, 1] here; the factor 1000 is the number of steps that the frequencies were made for.
    """
    half = width // 2
    frequencies = max_period ** (-jnp.arange(half) / half)
    angles = 1000.0 * t.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
