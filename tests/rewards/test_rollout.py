"""Rollouts: which steps have a gradient, and what they cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.diffusion.samplers import sample
from mobile_video_jax.diffusion.timesteps import time_grid
from mobile_video_jax.rewards.rollout import rollout

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 1, 2, 2, 3)), jnp.float32)


def velocity(weights):
    """Each weight acts in the steps that start within its half of the times."""
    return lambda x, t: jnp.where(t[0] > 0.5, weights[0], weights[1]) * jnp.tanh(x)


@functools.partial(jax.jit, static_argnums=(1, 2))
def reward(weights, steps, grad_steps, stop=None):
    grid = time_grid(steps, shift=1.0)
    frozen = velocity(jax.lax.stop_gradient(weights))
    stop = steps if stop is None else stop
    return jnp.mean(rollout(velocity(weights), frozen, X, grid, stop=stop, grad_steps=grad_steps) ** 2)


WEIGHTS = jnp.array([0.7, -0.4])


def test_a_rollout_is_sampling():
    end = sample(velocity(WEIGHTS), X, steps=8)
    np.testing.assert_allclose(reward(WEIGHTS, 8, 2), jnp.mean(end**2), rtol=1e-5)


def test_no_gradient_without_steps_and_exactly_none_before_the_last():
    gradient = jax.grad(reward)
    assert np.all(gradient(WEIGHTS, 8, 0) == 0)
    early, late = gradient(WEIGHTS, 8, 3)
    assert early == 0 != late


def test_the_gradient_is_that_of_finite_differences():
    gradient = jax.grad(reward)(WEIGHTS, 4, 4)
    for i, unit in enumerate(jnp.eye(2)):
        difference = (reward(WEIGHTS + 1e-2 * unit, 4, 4) - reward(WEIGHTS - 1e-2 * unit, 4, 4)) / 2e-2
        np.testing.assert_allclose(gradient[i], difference, rtol=1e-2)


def test_memory_does_not_depend_on_the_number_of_steps_without_gradient():
    def peak(steps: int, grad_steps: int) -> int:
        step = jax.jit(lambda weights: jax.grad(reward)(weights, steps, grad_steps))
        return step.lower(WEIGHTS).compile().memory_analysis().temp_size_in_bytes

    assert peak(64, 2) <= peak(4, 2) + 4 * 64  # the times of the steps alone


@pytest.mark.parametrize("stop", [2, 5])
def test_a_rollout_may_end_at_a_traced_step(stop):
    grid = time_grid(8, shift=1.0)
    x = X
    for i in range(stop):
        x = x + (grid[i + 1] - grid[i]) * velocity(WEIGHTS)(x, grid[i : i + 1])
    np.testing.assert_allclose(reward(WEIGHTS, 8, 1, jnp.asarray(stop)), jnp.mean(x**2), rtol=1e-5)
