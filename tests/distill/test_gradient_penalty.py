"""R1 against functions with known gradients."""

import jax
import jax.numpy as jnp
import pytest

from mobile_video_jax.distill.gradient_penalty import finite_r1_penalty, r1_penalty
from tests.nets import normal


def test_r1_is_the_squared_gradient_and_the_finite_form_its_estimate():
    real, weights = normal(0, 4, 2, 2, 2, 3), normal(1, 2, 2, 2, 3)
    logits_of = lambda y: jnp.sum(jnp.tanh(y) * weights, axis=(1, 2, 3, 4))[:, None]
    gradient = weights / jnp.cosh(real) ** 2
    exact = float(jnp.mean(jnp.sum(gradient**2, axis=(1, 2, 3, 4))))
    assert float(r1_penalty(logits_of, real)) == pytest.approx(exact, rel=1e-4)
    estimate = jax.vmap(lambda key: finite_r1_penalty(logits_of, real, logits_of(real), key, 0.01))
    values = estimate(jax.random.split(jax.random.key(0), 2000))
    assert float(jnp.mean(values)) == pytest.approx(exact, rel=0.06)
