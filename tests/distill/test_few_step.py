"""Training states of a few-step student, and the target of one of its steps."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.rng import named_key
from mobile_video_jax.diffusion.path import interpolate
from mobile_video_jax.diffusion.samplers import SOLVERS, sample
from mobile_video_jax.diffusion.timesteps import time_grid
from mobile_video_jax.distill.few_step import FewStepStates, euler, few_step_states, mean_velocity, renoise
from tests.nets import normal

GRID = time_grid(4, shift=3.0)
RNG = jax.random.key(0)


def test_every_step_is_sampled_equally_from_noised_data():
    x0 = normal(0, 8, 2, 1, 1, 2)
    start = few_step_states(lambda x, t: x, x0, GRID, RNG, own_states=0.0, rollout=False, step=euler)
    assert sorted(np.asarray(start.t).tolist()) == sorted(2 * GRID[:-1].tolist())
    after = {float(t): float(t_next) for t, t_next in itertools.pairwise(GRID)}
    np.testing.assert_allclose(start.t_next, [after[float(t)] for t in start.t])
    noise = jax.random.normal(named_key(RNG, "noise"), x0.shape)
    np.testing.assert_allclose(start.x_t, interpolate(x0, noise, start.t), atol=1e-6)


def test_own_states_are_the_students_euler_step_without_gradient():
    x0, factor = normal(0, 8, 2, 1, 1, 2), jnp.float32(0.3)
    simulated = lambda f: few_step_states(lambda x, t: f * x, x0, GRID, RNG, own_states=1.0, rollout=False, step=euler)
    start = simulated(factor)
    noise = jax.random.normal(named_key(RNG, "noise"), x0.shape)
    for i in range(8):
        step = int(np.argmin(np.abs(GRID - start.t[i])))
        before = GRID[max(step - 1, 0)]
        x = (1 - before) * x0[i] + before * noise[i]
        np.testing.assert_allclose(start.x_t[i], x + (start.t[i] - before) * factor * x, atol=1e-6)
    assert not np.any(jax.jacobian(lambda f: simulated(f).x_t)(factor))


def test_one_step_of_the_mean_velocity_equals_the_teachers_steps():
    velocity = lambda x, t: x * t[:, None, None, None, None]
    noise = normal(1, 2, 2, 1, 1, 2)
    start = FewStepStates(noise, jnp.ones(2), jnp.zeros(2))
    many = mean_velocity(velocity, start, 5)
    np.testing.assert_allclose(noise - many, sample(velocity, noise, steps=5), atol=1e-6)
    np.testing.assert_allclose(mean_velocity(velocity, start, 1), velocity(noise, start.t))


@pytest.mark.parametrize(("solver", "step"), [("euler", euler), ("renoise", renoise)])
def test_a_rollout_ends_where_the_sampler_does_before_its_last_step(solver, step):
    """The mean over clips of what fresh noise does not change: x0 predictions of a network that ignores it."""
    velocity = lambda x, t: (x - 2.0) / t[:, None, None, None, None]  # x0 is 2 everywhere
    states = few_step_states(velocity, normal(0, 512, 1, 1, 1, 2), GRID, RNG, own_states=1.0, rollout=True, step=step)
    for t in GRID[1:-1]:
        x_t = np.asarray(states.x_t[states.t == t])
        assert abs(x_t.mean() - (1 - float(t)) * 2) < 0.15 and abs(x_t.std() / float(t) - 1) < 0.15
    samples = SOLVERS[solver](velocity, normal(1, 2, 1, 1, 1, 2), GRID)
    np.testing.assert_allclose(samples, 2.0, atol=1e-5)
