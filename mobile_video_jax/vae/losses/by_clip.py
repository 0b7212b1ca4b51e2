"""Errors of each clip of a batch alone, for held-out means over clips."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Scalar, Video
from mobile_video_jax.vae.losses.terms import reconstruction_terms
from mobile_video_jax.vae.posterior import Posterior


def terms_by_clip(video: Video, decoded: Video, posterior: Posterior) -> dict[str, Float[Array, "b"]]:
    """The terms of reconstruction of each clip."""

    def terms(*clip: jax.Array) -> dict[str, Scalar]:
        real_clip, decoded_clip, mean, log_variance = (x[None] for x in clip)
        return reconstruction_terms(real_clip, decoded_clip, Posterior(mean, log_variance))

    by_clip: dict[str, jax.Array] = jax.vmap(terms)(video, decoded, posterior.mean, posterior.log_variance)
    return by_clip


def psnr_by_clip(video: Video, decoded: Video) -> Float[Array, "b"]:
    """PSNR in dB of each clip in [-1, 1], whose peak is 2; decoded values beyond are clipped."""
    squared = jnp.mean((jnp.clip(decoded, -1.0, 1.0) - video) ** 2, axis=(1, 2, 3, 4))
    return 10 * jnp.log10(4.0 / squared)
