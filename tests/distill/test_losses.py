"""The losses of both players: their signs, and R1 against what it is for functions with known gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.distill.adversarial import (
    finite_r1_penalty,
    hinge_discriminator_loss,
    hinge_generator_loss,
    r1_penalty,
)
from tests.nets import normal


def test_each_player_pulls_logits_its_own_way():
    real, fake = jnp.array([0.5, 2.0]), jnp.array([-0.5, -3.0])
    assert float(hinge_discriminator_loss(real, fake)) == pytest.approx((0.5 + 0.5) / 2)
    towards_real, away_from_fake = jax.grad(hinge_discriminator_loss, (0, 1))(real, fake)
    np.testing.assert_allclose(towards_real, [-0.5, 0.0])  # descent raises logits of real clips, up to 1
    np.testing.assert_allclose(away_from_fake, [0.5, 0.0])
    np.testing.assert_allclose(jax.grad(hinge_generator_loss)(fake), [-0.5, -0.5])


def test_r1_is_the_squared_gradient_and_the_finite_form_its_estimate():
    real, weights = normal(0, 4, 2, 2, 2, 3), normal(1, 2, 2, 2, 3)
    judge = lambda y: jnp.sum(jnp.tanh(y) * weights, axis=(1, 2, 3, 4))
    gradient = weights / jnp.cosh(real) ** 2
    exact = float(jnp.mean(jnp.sum(gradient**2, axis=(1, 2, 3, 4))))
    assert float(r1_penalty(judge, real)) == pytest.approx(exact, rel=1e-4)
    estimate = jax.vmap(lambda key: finite_r1_penalty(judge, real, judge(real), key, 0.01))
    values = estimate(jax.random.split(jax.random.key(0), 2000))
    assert float(jnp.mean(values)) == pytest.approx(exact, rel=0.06)
