"""Solvers of dx/dt = v(x, t) from noise at t = 1 to data at t = 0."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import Latents, Times
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.timesteps import time_grid

Velocity = Callable[[Latents, Times], Latents]


def euler_step(velocity: Velocity, x: Latents, t: jnp.ndarray, t_next: jnp.ndarray) -> Latents:
    """x + (t_next - t) v(x, t): first order, one evaluation."""
    return x + (t_next - t) * velocity(x, jnp.full(x.shape[:1], t))


def heun_step(velocity: Velocity, x: Latents, t: jnp.ndarray, t_next: jnp.ndarray) -> Latents:
    """The mean of the slopes at both ends of an Euler step: second order, two evaluations."""
    v = velocity(x, jnp.full(x.shape[:1], t))
    v_next = velocity(x + (t_next - t) * v, jnp.full(x.shape[:1], t_next))
    return x + (t_next - t) * 0.5 * (v + v_next)


SOLVERS = {"euler": euler_step, "heun": heun_step}


def sample(velocity: Velocity, noise: Latents, *, steps: int, shift: float = 1.0, solver: str = "euler") -> Latents:
    """Integrates from noise to data on the shifted grid of `steps` steps. Raises UserError for an unknown solver."""
    if solver not in SOLVERS:
        raise UserError(f"sampler '{solver}' is unknown; choose one of {', '.join(SOLVERS)}")
    if steps < 1:
        raise UserError(f"steps must be 1 or more, not {steps}")
    grid = time_grid(steps, shift=shift)

    def body(x: Latents, times: tuple[jnp.ndarray, jnp.ndarray]) -> tuple[Latents, None]:
        return SOLVERS[solver](velocity, x, *times), None

    return jax.lax.scan(body, noise, (grid[:-1], grid[1:]))[0]
