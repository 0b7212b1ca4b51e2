"""The linear layer of every network here."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.nn.affine import affine
from mobile_video_jax.nn.module import partitioned
from mobile_video_jax.parallel.rules import constrain_to_batch, has_sequence

Initializer = nn.initializers.Initializer
zeros = nn.initializers.zeros_init()
xavier = nn.initializers.xavier_uniform()


class Dense(nn.Module):
    """Computes x W + b over the last axis, in `dtype`, with float32 parameters.

    `axes` are the logical names of the kernel's two axes; parallel/rules.py maps them to the mesh.
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
        # One flat matrix product: XLA's CPU back end is several times slower on batched ones. Of tokens that are cut it
        # has no layout, and gathers them.
        rows = x if has_sequence(x) else x.reshape(-1, x.shape[-1])
        y = affine(rows.astype(self.dtype), jnp.asarray(kernel, self.dtype), bias)
        return constrain_to_batch(y.reshape(*x.shape[:-1], self.features), self.axes[1])
