"""Training states of a few-step student: noisy clips at the times of its own sampling steps."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mobile_video_jax.core.arrays import Latents, Rng, Times
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.diffusion.path import Velocity, interpolate, predict_x0

# (velocity, x_t, t, t_next, fresh noise) -> x at t_next, each clip between its own times.
Step = Callable[[Velocity, Latents, Times, Times, Latents], Latents]
Grid = Float[Array, "points"]  # times falling from 1 to 0


class FewStepStates(NamedTuple):
    """Noisy clips x_t at times t where their steps start, and the times t_next where these end."""

    x_t: Latents
    t: Times
    t_next: Times


def few_step_states(
    velocity: Velocity, x0: Latents, grid: Grid, rng: Rng, *, own_states: float, rollout: bool, step: Step
) -> FewStepStates:
    """Samples training states: each clip gets one step of `grid`, uniformly.

    x_t is noised data or, with probability `own_states`, the student's own, without gradient: the student learns to
    correct its own errors. Its own are one step from noised data at the previous grid point or, by `rollout`, all
    steps from pure noise (backward simulation, arXiv 2405.14867).
    """
    count, steps = x0.shape[0], grid.shape[0] - 1
    index = (jnp.arange(count) + jax.random.randint(named_key(rng, "step"), (), 0, steps)) % steps
    noise, t = jax.random.normal(named_key(rng, "noise"), x0.shape), grid[index]
    x_t = interpolate(x0, noise, t)
    if own_states > 0 and steps > 1:
        fresh = named_key(rng, "fresh")
        if rollout:
            own = roll_out(velocity, noise, grid, index, step, fresh)
        else:
            before = grid[jnp.maximum(index - 1, 0)]
            own = step(velocity, interpolate(x0, noise, before), before, t, jax.random.normal(fresh, x0.shape))
        use = jax.random.bernoulli(named_key(rng, "own"), own_states, (count,)) & (index > 0)
        x_t = jax.lax.stop_gradient(jnp.where(use[:, None, None, None, None], own, x_t))
    return FewStepStates(x_t, t, grid[index + 1])


def roll_out(velocity: Velocity, noise: Latents, grid: Grid, index: Int[Array, "b"], step: Step, rng: Rng) -> Latents:
    """The student's states at the start of step number `index` of each clip, from pure noise."""

    def body(x: Latents, i: jax.Array) -> tuple[Latents, None]:
        t, t_next = (jnp.full(x.shape[:1], grid[j]) for j in (i, i + 1))
        moved = step(velocity, x, t, t_next, jax.random.normal(jax.random.fold_in(rng, i), x.shape))
        return jnp.where((i < index)[:, None, None, None, None], moved, x), None

    return jax.lax.scan(body, noise, jnp.arange(grid.shape[0] - 2))[0]


def euler(velocity: Velocity, x_t: Latents, t: Times, t_next: Times, fresh: Latents) -> Latents:
    """One Euler step."""
    return x_t + (t_next - t)[:, None, None, None, None] * velocity(x_t, t)


def renoise(velocity: Velocity, x_t: Latents, t: Times, t_next: Times, fresh: Latents) -> Latents:
    """The x0 prediction, noised afresh to t_next."""
    return interpolate(predict_x0(x_t, velocity(x_t, t), t), fresh, t_next)


STEPS: dict[str, Step] = {"euler": euler, "renoise": renoise}  # by the solver that the student is sampled with


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
