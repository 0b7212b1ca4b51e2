"""Bits that a VAE's latents take: the rate of a rate-distortion curve."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.progress import tracked
from mobile_video_jax.models.vae import VaeBundle
from mobile_video_jax.nn.module import apply
from mobile_video_jax.vae.pixels import to_signed

Moments = Float[np.ndarray, "*positions c"]


def posterior_bits(bundle: VaeBundle, clips: Clips) -> float:
    """Bits a pixel of the latents of clips, see `bits_a_value`."""

    @jax.jit
    def encode(params: Any, video: jax.Array) -> tuple[jax.Array, jax.Array]:
        posterior = apply(bundle.vae, params, to_signed(video), method="encode")
        return posterior.mean, posterior.log_variance

    coded = [jax.device_get(encode(bundle.params, clip[None])) for clip in tracked("encode:", clips, len(clips))]
    mean, log_variance = (np.asarray(np.concatenate(parts)) for parts in zip(*coded, strict=True))
    values_a_pixel: float = mean.size / clips[..., 0].size
    return bits_a_value(mean, log_variance) * values_a_pixel


def bits_a_value(mean: Moments, log_variance: Moments) -> float:
    """Mean KL divergence of posteriors from the normal law of each channel's own aggregate, in bits a latent value.

    The aggregate N(m, v) has v = var(mean) + mean(s²) over all positions, so that the mean divergence is
    (log2 v - mean log2 s²) / 2 (arXiv 1312.6114 with a fitted prior): an upper bound on what the latents tell. A
    standard normal in its place would count the scale of the latents, which training leaves free where its KL term is
    small.
    """
    mean, log_variance = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (mean, log_variance))
    aggregate = mean.var(axis=0) + np.exp(log_variance).mean(axis=0)
    bits = (np.log2(aggregate) - log_variance.mean(axis=0) / np.log(2)) / 2
    return float(bits.mean())
