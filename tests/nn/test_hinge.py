"""Hinge losses and their gradients, computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.nn.hinge import hinge_discriminator_loss, hinge_generator_loss

REAL, FAKE = jnp.array([2.0, 0.5, -1.0]), jnp.array([-3.0, 0.0, 1.0])


def test_hinge_losses():
    np.testing.assert_allclose(hinge_discriminator_loss(REAL, FAKE), (0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3, rtol=1e-6)
    np.testing.assert_allclose(hinge_generator_loss(FAKE), (3 + 0 - 1) / 3, rtol=1e-6)


def test_logits_beyond_the_margin_have_no_gradient_but_the_generators_always_do():
    real_gradient, fake_gradient = jax.grad(hinge_discriminator_loss, argnums=(0, 1))(REAL, FAKE)
    np.testing.assert_allclose(real_gradient, np.array([0, -1, -1]) / 3)  # descent raises logits of real clips
    np.testing.assert_allclose(fake_gradient, np.array([0, 1, 1]) / 3)
    np.testing.assert_allclose(jax.grad(hinge_generator_loss)(FAKE), -np.ones(3) / 3)
