"""The straight path between data and noise (rectified flow, arXiv 2209.03003)."""

import jax.numpy as jnp

from mobile_video_jax.core.arrays import Latents, Times


def _column(t: Times) -> Latents:
    return t[:, None, None, None, None]


def interpolate(x0: Latents, noise: Latents, t: Times) -> Latents:
    """x_t = (1 - t) x0 + t noise; t = 0 is data, t = 1 is noise."""
    return (1 - _column(t)) * x0 + _column(t) * noise


def velocity_target(x0: Latents, noise: Latents) -> Latents:
    """The path's velocity dx_t / dt = noise - x0, which the model learns."""
    return noise - x0


def predict_x0(x_t: Latents, velocity: Latents, t: Times) -> Latents:
    """The data point that a velocity at (x_t, t) points back to: x_t - t v."""
    return x_t - _column(t) * velocity


def flow_matching_loss(predicted: Latents, target: Latents) -> jnp.ndarray:
    """Mean squared error of the velocity for each clip [b] (arXiv 2210.02747)."""
    return jnp.mean((predicted - target) ** 2, axis=(1, 2, 3, 4))
