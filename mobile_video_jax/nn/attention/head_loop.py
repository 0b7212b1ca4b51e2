"""Attention for CPUs in a loop over heads: logits stay in the cache, and all products have a half-precision kernel."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

Heads = Float[Array, "g n d"]  # g heads of all clips

MASKED = -1e4  # as in nn/attention/layer.py
UNROLL = 8  # heads whose work can overlap; one at a time takes twice as long


def head_attend(
    q: Float[Array, "b n h d"],
    k: Float[Array, "b m h d"],
    v: Float[Array, "b m h d"],
    mask: Bool[Array, "#b 1 m"] | None = None,
) -> Float[Array, "b n h d"]:
    """nn.attention.layer.attend in a loop over the heads of all clips; softmax gradient of arXiv 2205.14135, B.2.

    XLA's CPU back end (jaxlib 0.10) fuses the plain form so that it takes three times as long at 336 tokens. Its bf16
    kernels compute x w and x w^T only, so the backward pass computes the logits twice, by queries and by keys, instead
    of transposing them.
    """
    b, n, h, d = q.shape
    valid = jnp.ones((1, 1, k.shape[1]), bool) if mask is None else mask
    bias = jnp.where(jnp.broadcast_to(valid, (b, h, k.shape[1])), 0.0, MASKED).reshape(b * h, -1)
    q = (q.astype(jnp.float32) * d**-0.5).astype(q.dtype)
    return _attend(_by_head(q), _by_head(k), _by_head(v), bias).reshape(b, h, n, d).swapaxes(1, 2)


def _by_head(x: Float[Array, "b n h d"]) -> Heads:
    b, n, h, d = x.shape
    return x.swapaxes(1, 2).reshape(b * h, n, d)


@jax.custom_vjp
def _attend(q: Heads, k: Float[Array, "g m d"], v: Float[Array, "g m d"], bias: Float[Array, "g m"]) -> Heads:
    return _forward(q, k, v, bias)[0]


def _forward(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    def head(inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        q, k, v, bias = inputs
        logits = _times_transposed(q, k) + bias
        normalizer = jax.nn.logsumexp(logits, axis=-1)
        return _times(jnp.exp(logits - normalizer[:, None]), v), normalizer

    out, normalizer = _map_heads(head, (q, k, v, bias))
    return out, (q, k, v, bias, out, normalizer)


def _backward(residuals: tuple[jax.Array, ...], gradient: Heads) -> tuple[jax.Array, ...]:
    def head(inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        q, k, v, bias, out, normalizer, g = inputs
        mean = jnp.sum(g.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)
        weights = jnp.exp(_times_transposed(q, k) + bias - normalizer[:, None])
        dq = _times(weights * (_times_transposed(g, v) - mean[:, None]), k)
        weights = jnp.exp(_times_transposed(k, q) + bias[:, None] - normalizer)
        dk = _times(weights * (_times_transposed(v, g) - mean), q)
        return dq, dk, _times(weights, g)

    dq, dk, dv = _map_heads(head, (*residuals, gradient))
    return dq, dk, dv, jnp.zeros_like(residuals[3])


_attend.defvjp(_forward, _backward)


def _map_heads(head: Callable[[Any], Any], arrays: tuple[jax.Array, ...]) -> Any:
    def step(carry: None, inputs: tuple[jax.Array, ...]) -> tuple[None, Any]:
        return carry, head(inputs)

    return lax.scan(step, None, arrays, unroll=UNROLL)[1]


def _times(weights: Float[Array, "n m"], x: Float[Array, "m d"]) -> Float[Array, "n d"]:
    product = lax.dot_general(weights.astype(x.dtype), x, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return product.astype(x.dtype)


def _times_transposed(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
    return lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
