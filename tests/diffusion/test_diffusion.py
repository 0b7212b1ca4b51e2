"""Path, times, samplers and guidance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.guidance import drop_captions, guided, null_text
from mobile_video_jax.diffusion.path import flow_matching_loss, interpolate, predict_x0, velocity_target
from mobile_video_jax.diffusion.samplers import sample
from mobile_video_jax.diffusion.timesteps import sample_times, shift_times, stratified_times, time_grid

SHAPE = (2, 2, 2, 2, 3)


def clips(seed: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), SHAPE)


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


def exact_velocity(mean: float, std: float):
    """The velocity of the path between N(mean, std^2) and N(0, 1), whose solution is known in closed form."""

    def velocity(x, t):
        t = t[:, None, None, None, None]
        variance = (1 - t) ** 2 * std**2 + t**2
        return -mean + (t - (1 - t) * std**2) / variance * (x - (1 - t) * mean)

    return velocity


def test_samplers_converge_at_their_order():
    noise = clips(3)
    exact = 0.5 + 0.3 * noise
    error = {
        (solver, steps): float(
            np.abs(sample(exact_velocity(0.5, 0.3), noise, steps=steps, solver=solver) - exact).max()
        )
        for solver in ("euler", "heun")
        for steps in (20, 40)
    }
    assert 1.7 < error["euler", 20] / error["euler", 40] < 2.3
    assert 3.3 < error["heun", 20] / error["heun", 40] < 4.7
    assert error["heun", 40] < 1e-3


def test_bad_sampling_settings_are_refused():
    with pytest.raises(UserError, match="choose one of euler, heun"):
        sample(exact_velocity(0, 1), clips(0), steps=2, solver="ode45")
    with pytest.raises(UserError, match="steps must be 1 or more"):
        sample(exact_velocity(0, 1), clips(0), steps=0)


def denoiser(x_t, t, text, mask):
    return x_t + jnp.sum(text * mask[..., None], axis=(1, 2))[:, None, None, None, None]


def test_guidance_extrapolates_from_the_null_text_and_scale_one_is_the_plain_model():
    text, mask = jax.random.normal(jax.random.key(4), (2, 3, 4)), jnp.array([[True, True, False]] * 2)
    x, t = clips(5), jnp.full(2, 0.5)
    plain, null = denoiser(x, t, text, mask), denoiser(x, t, *null_text(text, mask))
    np.testing.assert_allclose(guided(denoiser, text, mask, 1.0)(x, t), plain, atol=1e-6)
    np.testing.assert_allclose(guided(denoiser, text, mask, 4.0)(x, t), null + 4 * (plain - null), atol=1e-5)


def test_caption_dropout_replaces_the_share_it_is_told():
    text, mask = jnp.ones((4000, 3, 2)), jnp.ones((4000, 3), bool)
    dropped_text, dropped_mask = drop_captions(jax.random.key(0), text, mask, 0.25)
    gone = np.asarray(dropped_text).sum(axis=(1, 2)) == 0
    assert 0.22 < gone.mean() < 0.28
    np.testing.assert_array_equal(np.asarray(dropped_mask).sum(axis=1), np.where(gone, 1, 3))
