"""The straight path between data and noise (rectified flow, arXiv 2209.03003)."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import FrameTimes, LatentMask, Latents, Times

Velocity = Callable[[Latents, Times], Latents]


def _column(t: FrameTimes) -> Float[Array, "b f 1 1 1"]:
    return t.reshape(t.shape[0], -1, 1, 1, 1)


def interpolate(x0: Latents, noise: Latents, t: FrameTimes) -> Latents:
    """x_t = (1 - t) x0 + t noise; t = 0 is data, t = 1 is noise, per clip or per latent frame."""
    return (1 - _column(t)) * x0 + _column(t) * noise


def velocity_target(x0: Latents, noise: Latents) -> Latents:
    """The path's velocity dx_t / dt = noise - x0, which the model learns."""
    return noise - x0


def predict_x0(x_t: Latents, velocity: Latents, t: Times) -> Latents:
    """The x0 prediction of a velocity at (x_t, t): x_t - t v."""
    return x_t - _column(t) * velocity


def flow_matching_loss(predicted: Latents, target: Latents, mask: LatentMask | None = None) -> Float[Array, "b"]:
    """Mean squared error of the velocity for each clip (arXiv 2210.02747), over positions where `mask` is True."""
    errors = jnp.mean((predicted - target) ** 2, axis=4)
    return jnp.mean(errors, axis=(1, 2, 3), where=mask)
