"""Distances between clips, and distribution matching's direction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.distill.distances import HUBER_C, mean_square, pseudo_huber
from mobile_video_jax.distill.distribution_matching import matching_direction, matching_loss
from tests.nets import normal

POSITIONS = jnp.array([True, False])[None, :, None, None]


def test_pseudo_huber_is_quadratic_near_and_linear_far():
    x = normal(0, 1, 2, 1, 1, 3)
    near, far = (float(pseudo_huber(x, x + gap)[0]) for gap in (HUBER_C / 100, 5.0))
    assert near == pytest.approx(HUBER_C / 2e4, rel=0.05) and far == pytest.approx(5.0, rel=1e-3)
    garbage = x.at[:, 1].set(100.0)
    np.testing.assert_allclose(mean_square(x, garbage, POSITIONS), 0.0)


def test_matching_descends_from_the_critics_x0_to_the_teachers():
    x0, real, fake = normal(0, 1, 2, 1, 1, 3), normal(1, 1, 2, 1, 1, 3), normal(2, 1, 2, 1, 1, 3)
    direction = matching_direction(x0, real, fake)
    np.testing.assert_allclose(direction, (fake - real) / jnp.mean(jnp.abs(x0 - real)), rtol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(matching_loss(x, direction)))(x0)
    np.testing.assert_allclose(gradient, direction / x0.size, rtol=1e-5)
    padded = matching_direction(x0, real.at[:, 1].set(1e3), fake, POSITIONS)
    np.testing.assert_allclose(padded[:, :1], (fake - real)[:, :1] / jnp.mean(jnp.abs(x0 - real)[:, 0]), rtol=1e-5)
