"""Rollouts from noise whose last steps alone have a gradient (DRaFT-K, arXiv 2309.17400)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Latents
from mobile_video_jax.diffusion.path import Velocity
from mobile_video_jax.diffusion.samplers import euler_step


def rollout(
    velocity: Velocity,
    frozen: Velocity,
    noise: Latents,
    grid: Float[Array, "points"],
    *,
    stop: jax.Array | int,
    grad_steps: int,
) -> Latents:
    """Euler steps from noise to x at grid[stop]: the last `grad_steps` by `velocity`, the ones before by `frozen`.

    `frozen` is the same network at parameters without gradient. Its steps are a loop that saves nothing for the
    backward pass, so that memory does not depend on their number; the others are checkpointed.
    """
    first = stop - grad_steps
    x = jax.lax.fori_loop(0, first, lambda i, x: euler_step(frozen, x, grid[i], grid[i + 1]), noise)
    x = jax.lax.stop_gradient(x)

    @jax.checkpoint
    def step(x: Latents, i: jax.Array) -> Latents:
        return euler_step(velocity, x, grid[i], grid[i + 1])

    for k in range(grad_steps):
        x = step(x, jnp.asarray(first + k))
    ended: Latents = x
    return ended
