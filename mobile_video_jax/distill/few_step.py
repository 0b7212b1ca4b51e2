"""Which noisy clips a few-step student is trained on: those that it meets when it samples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Latents, Rng, Times
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.diffusion.path import interpolate
from mobile_video_jax.diffusion.samplers import Velocity


class FewStepStates(NamedTuple):
    """Noisy clips at the times of their steps, and the times that the steps lead to."""

    x_t: Latents
    t: Times
    t_next: Times


def few_step_states(
    velocity: Velocity, x0: Latents, grid: Float[Array, "points"], rng: Rng, own_states: float
) -> FewStepStates:
    """Clips at the starts of the steps of `grid` (falling from 1 to 0), as many at each as at any other.

    x_t is noised data or, with probability `own_states`, where the student's own Euler step leads from noised data at
    the time before, so that it learns to mend its own errors. The step is a constant to the gradient.
    """
    count, steps = x0.shape[0], grid.shape[0] - 1
    step = (jnp.arange(count) + jax.random.randint(named_key(rng, "step"), (), 0, steps)) % steps
    noise, t = jax.random.normal(named_key(rng, "noise"), x0.shape), grid[step]
    x_t = interpolate(x0, noise, t)
    if own_states > 0 and steps > 1:
        before = grid[jnp.maximum(step - 1, 0)]
        own = euler(velocity, interpolate(x0, noise, before), before, t)
        taken = jax.random.bernoulli(named_key(rng, "own"), own_states, (count,)) & (step > 0)
        x_t = jax.lax.stop_gradient(jnp.where(taken[:, None, None, None, None], own, x_t))
    return FewStepStates(x_t, t, grid[step + 1])


def euler(velocity: Velocity, x_t: Latents, t: Times, t_next: Times) -> Latents:
    """One Euler step of clips that each have their own times."""
    return x_t + (t_next - t)[:, None, None, None, None] * velocity(x_t, t)


def mean_velocity(velocity: Velocity, start: FewStepStates, steps: int) -> Latents:
    """(x_t - x_next) / (t - t_next), x_next where `steps` equal Euler steps lead: what one step must do to get there.

    The target of progressive distillation (arXiv 2202.00512) on the straight path; with one step the velocity itself.
    """
    if steps == 1:
        return velocity(start.x_t, start.t)
    length = (start.t_next - start.t) / steps

    def body(x: Latents, i: jax.Array) -> tuple[Latents, Latents]:
        v = velocity(x, start.t + i * length)
        return x + length[:, None, None, None, None] * v, v

    return jnp.mean(jax.lax.scan(body, start.x_t, jnp.arange(steps))[1], axis=0)
