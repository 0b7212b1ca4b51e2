"""Gradients of two losses brought to one size."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mobile_video_jax.distill.balance import balanced_sum, with_gradient

FIRST = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.0]), "own": jnp.zeros(2)}
SECOND = {"a": jnp.array([0.0, 1.0]), "b": jnp.array([2.0]), "own": jnp.array([2.0, 0.0])}


def test_gradients_are_added_as_they_are_or_scaled_to_the_first_ones_norm():
    np.testing.assert_array_equal(balanced_sum(FIRST, SECOND, "none")["a"], [3, 5])
    scaled = jax.tree.map(jnp.subtract, balanced_sum(FIRST, SECOND, "global"), FIRST)
    assert optax.tree.norm(scaled) == pytest.approx(5.0)
    np.testing.assert_allclose(scaled["a"] / scaled["own"][0], SECOND["a"] / SECOND["own"][0], rtol=1e-6)


def test_each_tensor_has_a_scale_of_its_own_and_none_where_the_first_gradient_is_zero():
    tensors = balanced_sum(FIRST, SECOND, "tensor")
    np.testing.assert_allclose(tensors["a"], [3, 9])
    np.testing.assert_array_equal(tensors["b"], [2])
    np.testing.assert_array_equal(tensors["own"], SECOND["own"])


def test_a_loss_with_a_given_gradient_keeps_its_value():
    params = {"w": jnp.array([1.0, -2.0])}
    loss = lambda p: with_gradient(jnp.sum(p["w"] ** 2), p, {"w": jnp.array([7.0, 8.0])})
    value, gradient = jax.value_and_grad(loss)(params)
    assert value == 5.0
    np.testing.assert_array_equal(gradient["w"], [7, 8])
