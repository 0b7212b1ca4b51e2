"""Training states of a few-step student: noisy clips at the times of its own sampling steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Latents, Rng, Times
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.diffusion.path import interpolate
from mobile_video_jax.diffusion.samplers import Velocity


class FewStepStates(NamedTuple):
    """Noisy clips x_t at times t where their steps start, and the times t_next where these end."""

    x_t: Latents
    t: Times
    t_next: Times


def few_step_states(
    velocity: Velocity, x0: Latents, grid: Float[Array, "points"], rng: Rng, own_states: float
) -> FewStepStates:
    """Samples training states: each clip gets one step of `grid` (times falling from 1 to 0), uniformly.

    x_t is noised data or, with probability `own_states`, the student's own Euler step from noised data at the previous
    grid point (backward simulation), without gradient: the student learns to correct its own errors.
    """
    count, steps = x0.shape[0], grid.shape[0] - 1
    step = (jnp.arange(count) + jax.random.randint(named_key(rng, "step"), (), 0, steps)) % steps
    noise, t = jax.random.normal(named_key(rng, "noise"), x0.shape), grid[step]
    x_t = interpolate(x0, noise, t)
    if own_states > 0 and steps > 1:
        previous = grid[jnp.maximum(step - 1, 0)]
        simulated = euler(velocity, interpolate(x0, noise, previous), previous, t)
        use = jax.random.bernoulli(named_key(rng, "own"), own_states, (count,)) & (step > 0)
        x_t = jax.lax.stop_gradient(jnp.where(use[:, None, None, None, None], simulated, x_t))
    return FewStepStates(x_t, t, grid[step + 1])


def euler(velocity: Velocity, x_t: Latents, t: Times, t_next: Times) -> Latents:
    """One Euler step, each clip between its own times."""
    return x_t + (t_next - t)[:, None, None, None, None] * velocity(x_t, t)


def mean_velocity(velocity: Velocity, states: FewStepStates, steps: int) -> Latents:
    """(x_t - x_next) / (t - t_next), where `steps` equal Euler steps lead to x_next at t_next.

    The target of progressive distillation (arXiv 2202.00512) on the straight path; for one step the velocity itself.
    """
    if steps == 1:
        return velocity(states.x_t, states.t)
    length = (states.t_next - states.t) / steps

    def body(x: Latents, i: jax.Array) -> tuple[Latents, Latents]:
        v = velocity(x, states.t + i * length)
        return x + length[:, None, None, None, None] * v, v

    _, velocities = jax.lax.scan(body, states.x_t, jnp.arange(steps))
    return jnp.mean(velocities, axis=0)
