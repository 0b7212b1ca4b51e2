"""The perceptual loss: its values by hand, and what it sees in clips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mobile_video_jax.vae.losses.perceptual import perceptual_distance, perceptual_loss
from mobile_video_jax.vae.losses.vgg import Vgg, load_vgg


@pytest.fixture(scope="module")
def distance():
    """perceptual_distance of the first three stages."""
    params = load_vgg(3)
    return jax.jit(lambda video, decoded: perceptual_distance(Vgg(3), params, video, decoded))


@pytest.fixture(scope="module")
def video() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 3, 32, 24, 3)), jnp.float32)


def feature_map(*vectors: tuple[float, ...]) -> jax.Array:
    return jnp.asarray(vectors)[None, None]


def test_loss_is_the_mean_over_places_and_stages_of_squared_chords():
    x = (feature_map((5.0, 0.0), (0.0, 7.0)), feature_map((1.0, 0.0, 0.0)))
    y = (feature_map((0.0, 2.0), (0.0, 3.0)), feature_map((3.0, 4.0, 0.0)))
    # Right angles are 2 apart, equal directions 0, and cos = 0.6 gives 2 - 2 * 0.6.
    np.testing.assert_allclose(perceptual_loss(x, y), ((2 + 0) / 2 + 0.8) / 2, rtol=1e-3)
    assert perceptual_loss(x, x) == 0


def test_features_of_zero_have_a_finite_gradient():
    zero, other = feature_map((0.0, 0.0)), feature_map((1.0, 0.0))
    gradient = jax.grad(lambda x, y: perceptual_loss((x,), (y,)))
    assert np.isfinite(gradient(zero, other)).all() and gradient(zero, other)[0, 0, 0, 0] < 0
    np.testing.assert_array_equal(gradient(zero, zero), 0)


def test_equal_clips_have_distance_zero_and_blur_adds_to_it(distance, video):
    blurred = [jnp.asarray(gaussian_filter(video, (0, 0, sigma, sigma, 0))) for sigma in (0.4, 0.6, 1.0, 2.0)]
    distances = [float(distance(video, decoded)) for decoded in (video, *blurred)]
    assert distances[0] == 0 and np.all(np.diff(distances) > 0.005) and distances[-1] < 2


def test_each_frame_is_compared_with_its_own(distance, video):
    decoded = video[..., ::-1]
    np.testing.assert_allclose(distance(video[:, ::-1], decoded[:, ::-1]), distance(video, decoded), rtol=1e-5)
    assert distance(video[:, ::-1], video) > 0.1


def test_a_step_down_the_gradient_brings_a_flat_clip_nearer(distance, video):
    flat = jnp.zeros_like(video)
    gradient = jax.jit(jax.grad(distance, argnums=1))(video, flat)
    assert np.isfinite(gradient).all()
    assert distance(video, flat - 0.01 * jnp.sign(gradient)) < distance(video, flat)
