"""The continuous-time consistency loss: its target is the derivative along the teacher's path."""

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.distill.consistency import TANGENT_C, consistency_loss
from tests.nets import normal

X, T = normal(0, 3, 2, 1, 1, 4), jnp.array([0.3, 0.6, 0.9])


def teacher(x, t):
    return jnp.cos(x) * t[:, None, None, None, None]


def student(x, t):
    return jnp.sin(x + t[:, None, None, None, None])


def test_the_target_is_a_step_along_the_derivative_of_the_prediction_by_finite_differences():
    def x0(h):
        moved, t = X + h * teacher(X, T), T + h
        return moved - t[:, None, None, None, None] * student(moved, t)

    h = 1e-2
    derivative = np.asarray(x0(h) - x0(-h)) / (2 * h)
    size = np.sqrt(np.mean(derivative**2, axis=(1, 2, 3, 4)))
    expected = (size / (size + TANGENT_C)) ** 2
    np.testing.assert_allclose(consistency_loss(student, teacher, X, T), expected, rtol=1e-3)


def test_a_consistent_student_has_no_loss_and_the_target_no_gradient():
    """Of straight paths the velocity itself is consistent."""
    constant = lambda x, t: jnp.broadcast_to(jnp.float32(0.5), x.shape)
    assert float(jnp.max(consistency_loss(constant, constant, X, T))) < 1e-10
    scaled = lambda factor: jnp.sum(consistency_loss(lambda x, t: factor * x, teacher, X, T))
    residual = teacher(X, T) - 0.5 * X - 0.5 * T[:, None, None, None, None] * teacher(X, T)
    size = jnp.sqrt(jnp.mean(residual**2, axis=(1, 2, 3, 4), keepdims=True)) + TANGENT_C
    expected = jnp.sum(jnp.mean(-2 * X * residual / size, axis=(1, 2, 3, 4)))
    np.testing.assert_allclose(jax.grad(scaled)(jnp.float32(0.5)), expected, rtol=1e-4)
