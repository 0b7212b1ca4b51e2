"""The linear layer of every network here."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.nn.module import partitioned

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
        # One flat matrix product: XLA's CPU back end is several times slower on batched ones.
        y = x.reshape(-1, x.shape[-1]).astype(self.dtype) @ kernel.astype(self.dtype)
        if self.use_bias:
            bias = self.param("bias", partitioned(zeros, self.axes[1:]), (self.features,))
            y = y + bias.astype(self.dtype)
        return y.reshape(*x.shape[:-1], self.features)
