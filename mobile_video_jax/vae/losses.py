"""The VAE's training loss."""

import dataclasses

import jax.numpy as jnp

from mobile_video_jax.core.arrays import Scalar, Video
from mobile_video_jax.vae.posterior import Posterior


@dataclasses.dataclass(frozen=True)
class VaeLossConfig:
    """Weights of the loss's terms."""

    l1: float = 0.1
    l2: float = 1.0
    kl: float = 1e-6


def reconstruction_loss(
    config: VaeLossConfig, video: Video, decoded: Video, posterior: Posterior
) -> tuple[Scalar, dict[str, Scalar]]:
    """l1 |x - y| + l2 (x - y)^2 + kl KL(posterior || normal), each term a mean; returns the loss and its parts."""
    error = decoded - video
    parts = {"l1": jnp.mean(jnp.abs(error)), "l2": jnp.mean(error**2), "kl": posterior.kl_to_normal()}
    loss = config.l1 * parts["l1"] + config.l2 * parts["l2"] + config.kl * parts["kl"]
    return loss, parts
