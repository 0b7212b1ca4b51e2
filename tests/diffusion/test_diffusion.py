"""Path, times and samplers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.path import flow_matching_loss, interpolate, predict_x0, velocity_target
from mobile_video_jax.diffusion.samplers import SOLVERS, extrapolation_weights, sample
from mobile_video_jax.diffusion.timesteps import sample_times, shift_times, stratified_times, time_grid, token_shift
from tests.diffusion.toy import SHAPE, clips, exact_velocity


def test_path_runs_from_data_to_noise_and_its_velocity_points_back():
    x0, noise, t = clips(0), clips(1), jnp.array([0.3, 0.9])
    np.testing.assert_array_equal(interpolate(x0, noise, jnp.zeros(2)), x0)
    np.testing.assert_array_equal(interpolate(x0, noise, jnp.ones(2)), noise)
    _, slope = jax.jvp(lambda t: interpolate(x0, noise, t), (t,), (jnp.ones(2),))
    np.testing.assert_allclose(slope, velocity_target(x0, noise), atol=1e-6)
    np.testing.assert_allclose(predict_x0(interpolate(x0, noise, t), velocity_target(x0, noise), t), x0, atol=1e-6)


def test_loss_is_a_mean_for_each_clip():
    np.testing.assert_allclose(flow_matching_loss(jnp.zeros(SHAPE), jnp.full(SHAPE, 2.0)), [4.0, 4.0])


def test_times_are_logit_normal_and_shifted():
    t = np.asarray(sample_times(jax.random.key(0), 100_000, shift=1.0))
    np.testing.assert_allclose(np.log(t / (1 - t)).mean(), 0, atol=0.02)
    np.testing.assert_allclose(np.log(t / (1 - t)).std(), 1, atol=0.02)
    shifted = np.asarray(sample_times(jax.random.key(0), 100_000, shift=3.0))
    np.testing.assert_allclose(shifted / (1 - shifted), 3 * t / (1 - t), rtol=1e-3)
    np.testing.assert_allclose(np.quantile(t, (np.arange(8) + 0.5) / 8), stratified_times(8, shift=1.0), atol=0.01)


def test_time_grid_runs_from_noise_to_data():
    grid = time_grid(4, shift=1.0)
    np.testing.assert_allclose(grid, [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(time_grid(4, shift=3.0), shift_times(grid, 3.0), atol=1e-6)


def test_the_token_shift_is_exponential_on_a_line_through_both_anchors():
    assert math.isclose(token_shift(1024), math.exp(0.95)) and math.isclose(token_shift(4096), math.exp(2.05))
    assert math.isclose(token_shift(2560), math.exp(1.5)) and math.isclose(token_shift(7168), math.exp(3.15))
    assert math.isclose(token_shift(20, base_tokens=10, base_mu=0.0, max_tokens=30, max_mu=1.0), math.exp(0.5))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(solver, order):
    mean, std, x = 0.5, 0.3, clips(3)

    def error(steps: int) -> float:
        # Even in log((1 - t) / t), the variable of dpmpp_2m: on an even grid of t its order shows a factor log(steps).
        grid = jax.nn.sigmoid(jnp.linspace(1.0, -1.0, steps + 1))
        deviation = jnp.hypot((1 - grid) * std, grid)
        exact = (1 - grid[-1]) * mean + deviation[-1] / deviation[0] * (x - (1 - grid[0]) * mean)
        return float(jnp.abs(SOLVERS[solver](exact_velocity(mean, std), x, grid) - exact).max())

    assert 0.9 * 2**order < error(20) / error(40) < 1.1 * 2**order


@pytest.mark.parametrize(("solver", "tolerance"), [("euler", 5e-2), ("heun", 1e-3), ("dpmpp_2m", 1e-2)])
def test_samplers_reach_the_data(solver, tolerance):
    samples = sample(exact_velocity(0.5, 0.3), clips(3), steps=40, solver=solver)
    np.testing.assert_allclose(samples, 0.5 + 0.3 * clips(3), rtol=0, atol=tolerance)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8])
def test_multistep_weights_are_finite_and_first_order_at_both_ends(steps):
    grid = np.linspace(1, 0, steps + 1)
    expected = np.zeros(steps)
    for i in range(2, steps - 1):
        before, here, after = (math.log((1 - t) / t) for t in grid[i - 1 : i + 2])
        expected[i] = (after - here) / (2 * (here - before))
    np.testing.assert_allclose(extrapolation_weights(time_grid(steps, shift=1.0)), expected, rtol=1e-5)


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m"])
def test_one_step_of_a_constant_velocity_is_exact(solver):
    np.testing.assert_allclose(
        sample(lambda x, t: jnp.full_like(x, 2.0), clips(0), steps=1, solver=solver), clips(0) - 2
    )


def test_bad_sampling_settings_are_refused():
    with pytest.raises(UserError, match="choose one of euler, heun, dpmpp_2m"):
        sample(exact_velocity(0, 1), clips(0), steps=2, solver="ode45")
    with pytest.raises(UserError, match="steps must be 1 or more"):
        sample(exact_velocity(0, 1), clips(0), steps=0)
