"""Gradients of two losses that share parameters, brought to one size."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Scalar
from mobile_video_jax.distill.config import Balance

Params = Any


def balanced_sum(first: Params, second: Params, balance: Balance) -> Params:
    """first + |first| / |second| second, with norms of the whole gradients, or of each tensor; "none": their sum.

    Where one of the norms is 0, as for what the first loss does not depend on, the second is added as it is.
    """
    if balance == "none":
        return jax.tree.map(jnp.add, first, second)
    if balance == "global":
        scale = _ratio(optax.tree.norm(first), optax.tree.norm(second))
        return jax.tree.map(lambda a, b: a + scale * b, first, second)
    return jax.tree.map(lambda a, b: a + _ratio(jnp.linalg.norm(a), jnp.linalg.norm(b)) * b, first, second)


def _ratio(a: Float[Array, ""], b: Float[Array, ""]) -> Float[Array, ""]:
    ratio: jax.Array = jnp.where((a > 0) & (b > 0), a / jnp.where(b > 0, b, 1.0), 1.0)
    return ratio


def with_gradient(value: Scalar, params: Params, gradient: Params) -> Scalar:
    """The value, as a loss whose gradient is the given one."""

    def term(x: jax.Array, g: jax.Array) -> Scalar:
        return jnp.sum((x - jax.lax.stop_gradient(x)) * jax.lax.stop_gradient(g))

    terms: Scalar = optax.tree.sum(jax.tree.map(term, params, gradient))
    return jax.lax.stop_gradient(value) + terms
