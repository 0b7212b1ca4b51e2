"""Linear layers: x W + b, and the feed-forward network of two of them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mobile_video_jax.nn.attention.kernels import platform_of
from mobile_video_jax.nn.gradient_sums import sums_in_float32
from mobile_video_jax.nn.module import partitioned
from mobile_video_jax.parallel.rules import constrain_to_batch, has_sequence

Initializer = nn.initializers.Initializer
zeros = nn.initializers.zeros_init()
xavier = nn.initializers.xavier_uniform()
FACTORS = ("lora_a", "lora_b")  # parameters of an adapter that is switched on


class Dense(nn.Module):
    """Computes x W + b over the last axis, in `dtype`, with float32 parameters.

    `axes` are the logical names of the kernel's two axes; parallel/rules.py maps them to the mesh. Where the parameters
    hold factors A and B of an adapter beside the kernel (dit/lora.py), (x A) B is added.
    """

    features: int
    axes: tuple[str | None, str | None]
    kernel_init: Initializer = xavier
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch i"]) -> Float[Array, "*batch o"]:
        kernel_init = partitioned(self.kernel_init, self.axes)
        kernel = self.param("kernel", kernel_init, (x.shape[-1], self.features))
        bias_init = partitioned(zeros, self.axes[1:])
        bias = jnp.asarray(self.param("bias", bias_init, (self.features,))) if self.use_bias else None
        # One flat matrix product: XLA's CPU back end is several times slower on batched ones. Tokens that are sharded
        # are not flattened: XLA has no sharding for the result and would gather them.
        rows = x if has_sequence(x) else x.reshape(-1, x.shape[-1])
        if self.dtype != jnp.float32 and sums_in_float32():
            y = affine_summed_in_float32(rows.astype(self.dtype), jnp.asarray(kernel), bias)
        else:
            y = affine(rows.astype(self.dtype), jnp.asarray(kernel, self.dtype), bias)
        if self.has_variable("params", FACTORS[0]):
            a, b = (jnp.asarray(self.get_variable("params", name), self.dtype) for name in FACTORS)
            y = y + affine(affine(rows.astype(self.dtype), a, None), b, None)
        return constrain_to_batch(y.reshape(*x.shape[:-1], self.features), self.axes[1])


class FeedForward(nn.Module):
    """Computes gelu(x W1 + b1) W2 + b2 with the tanh form of GELU (arXiv 1606.08415).

    Hidden channels are multiplied by `channel_mask`, one vector for all clips or one per clip.
    """

    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], channel_mask: Float[Array, "*b f"] | None = None
    ) -> Float[Array, "b n d"]:
        hidden = Dense(self.hidden, ("embed", "ffn"), dtype=self.dtype, name="up")(x)
        # Float32, rounded once: more exact, and on CPUs, which have no half-precision GELU, 2.6 times as fast.
        hidden = nn.gelu(hidden.astype(jnp.float32), approximate=True).astype(self.dtype)
        if channel_mask is not None:
            hidden = hidden * channel_mask[..., None, :].astype(self.dtype)
        return Dense(x.shape[-1], ("ffn", "embed"), dtype=self.dtype, name="down")(hidden)


def affine(x: Float[Array, "*m i"], w: Float[Array, "i o"], b: Float[Array, "o"] | None) -> Float[Array, "*m o"]:
    """x w + b in the dtype of x and w.

    XLA's CPU back end (jaxlib 0.10) has bf16 kernels only for x w and x w^T with a float32 result. It widens the
    factors of all other bf16 products to float32, at half the speed, and its bf16 sums over rows take 20 times as long
    as float32 ones. On CPUs both passes therefore ask for those kernels, and b and its gradient are summed in float32.
    """
    if x.ndim == 2 and x.dtype == jnp.bfloat16 and platform_of(x) == "cpu":
        y: jax.Array = lax.platform_dependent(x, w, b, cpu=_cpu_affine, default=_plain_affine)
        return y
    return _plain_affine(x, w, b)


@jax.custom_vjp
def affine_summed_in_float32(
    x: Float[Array, "*m i"], w: Float[Array, "i o"], b: Float[Array, "o"] | None
) -> Float[Array, "*m o"]:
    """x w + b in the dtype of x, with float32 gradients of w and b that are rounded nowhere before all devices' sum."""
    return _plain_affine(x, w.astype(x.dtype), b)


def _summed_forward(
    x: jax.Array, w: jax.Array, b: jax.Array | None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array | None]]:
    return affine_summed_in_float32(x, w, b), (x, w, b)


def _summed_backward(
    saved: tuple[jax.Array, jax.Array, jax.Array | None], g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    (x, w, b), rows = saved, tuple(range(g.ndim - 1))
    kernel = lax.dot_general(x, g, ((rows, rows), ((), ())), preferred_element_type=jnp.float32)
    return g @ w.astype(x.dtype).T, kernel, None if b is None else jnp.sum(g, axis=rows, dtype=jnp.float32)


affine_summed_in_float32.defvjp(_summed_forward, _summed_backward)


def _plain_affine(x: jax.Array, w: jax.Array, b: jax.Array | None) -> jax.Array:
    y = x @ w
    return y if b is None else y + b.astype(y.dtype)


def _cpu_affine(x: jax.Array, w: jax.Array, b: jax.Array | None) -> jax.Array:
    y = _float32_product(x, w)
    return (y if b is None else y + b.astype(y.dtype)).astype(x.dtype)


@jax.custom_vjp
def _float32_product(x: Float[Array, "m i"], w: Float[Array, "i o"]) -> Float[Array, "m o"]:
    return _contract(x, w, 1, 0)


def _product_forward(x: jax.Array, w: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _float32_product(x, w), (x, w)


def _product_backward(factors: tuple[jax.Array, jax.Array], g: Float[Array, "m o"]) -> tuple[jax.Array, jax.Array]:
    x, w = factors
    g = g.astype(x.dtype)
    # x^T g has no kernel. A transpose of two axes would be folded into the product, one of three is carried out.
    groups = 2 if x.shape[0] % 2 == 0 else 1
    transposed = x.reshape(groups, -1, x.shape[1]).transpose(2, 0, 1).reshape(x.shape[::-1])
    return _contract(g, w, 1, 1).astype(x.dtype), _contract(transposed, g, 1, 0).astype(w.dtype)


_float32_product.defvjp(_product_forward, _product_backward)


def _contract(a: jax.Array, b: jax.Array, a_axis: int, b_axis: int) -> jax.Array:
    """The product over one axis of each, accumulated and returned in float32."""
    return lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), preferred_element_type=jnp.float32)
