"""The affine map of dense layers, in a form that XLA's CPU back end runs in half precision."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mobile_video_jax.nn.attention.kernels import platform_of


def affine(x: Float[Array, "*m i"], w: Float[Array, "i o"], b: Float[Array, "o"] | None) -> Float[Array, "*m o"]:
    """x w + b in the dtype of x and w.

    XLA's CPU back end (jaxlib 0.10) has a bf16 kernel for x w and x w^T into float32 alone, and widens the factors of
    all other bf16 products to float32, at half the speed; its bf16 sums over rows take 20 times as long as those in
    float32. There both passes ask for that kernel, and b is added, and its gradient summed, in float32.
    """
    if x.ndim == 2 and x.dtype == jnp.bfloat16 and platform_of(x) == "cpu":
        return lax.platform_dependent(x, w, b, cpu=_accumulating_affine, default=_plain_affine)
    return _plain_affine(x, w, b)


def _plain_affine(x: jax.Array, w: jax.Array, b: jax.Array | None) -> jax.Array:
    y = x @ w
    return y if b is None else y + b.astype(y.dtype)


def _accumulating_affine(x: jax.Array, w: jax.Array, b: jax.Array | None) -> jax.Array:
    y = _product(x, w)
    return (y if b is None else y + b.astype(y.dtype)).astype(x.dtype)


@jax.custom_vjp
def _product(x: Float[Array, "m i"], w: Float[Array, "i o"]) -> Float[Array, "m o"]:
    return _accumulated(x, w, 1, 0)


def _forward(x: jax.Array, w: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(x, w), (x, w)


def _backward(factors: tuple[jax.Array, jax.Array], g: Float[Array, "m o"]) -> tuple[jax.Array, jax.Array]:
    x, w = factors
    g = g.astype(x.dtype)
    # x^T g has no kernel. A transpose of two axes would be folded into the product, one of three is carried out.
    parts = 2 if x.shape[0] % 2 == 0 else 1
    transposed = x.reshape(parts, -1, x.shape[1]).transpose(2, 0, 1).reshape(x.shape[::-1])
    return _accumulated(g, w, 1, 1).astype(x.dtype), _accumulated(transposed, g, 1, 0).astype(w.dtype)


def _accumulated(a: jax.Array, b: jax.Array, a_axis: int, b_axis: int) -> jax.Array:
    """The product over one axis of each, in float32."""
    return lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), preferred_element_type=jnp.float32)


_product.defvjp(_forward, _backward)
