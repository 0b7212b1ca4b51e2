"""Convolution layer over clips: 2-D per frame, or causal in 3-D."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.nn.clip_ops import Clip, clip_conv, depthwise_conv, frame_conv
from mobile_video_jax.nn.dense import Initializer, zeros
from mobile_video_jax.nn.module import partitioned
from mobile_video_jax.nn.stream import with_past

default_init = nn.initializers.lecun_normal()


class Conv(nn.Module):
    """A 3x3 convolution per frame, or a causal 3x3x3 one if `temporal`: frame t sees frames t-2, t-1 and t."""

    features: int
    temporal: bool
    kernel_init: Initializer = default_init
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Float[Array, "b t h w o"]:
        shape = (3,) * (3 if self.temporal else 2) + (x.shape[-1], self.features)
        axes = (None,) * (len(shape) - 2) + ("conv_in", "conv_out")
        kernel = self.param("kernel", partitioned(self.kernel_init, axes), shape)
        bias: jax.Array = self.param("bias", partitioned(zeros, axes[-1:]), (self.features,))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = clip_conv(with_past(self, x, 2), kernel) if self.temporal else frame_conv(x, kernel)
        return y + bias.astype(self.dtype)


class DepthwiseConv(nn.Module):
    """A 3x3x3 convolution of each channel alone, causal in time; a fresh one is the identity."""

    axis: str | None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Clip:
        taps = self.param("taps", partitioned(_identity, (None, None, None, self.axis)), (3, 3, 3, x.shape[-1]))
        return depthwise_conv(with_past(self, x.astype(self.dtype), 2), jnp.asarray(taps, self.dtype))


def _identity(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    return jnp.zeros(shape, dtype).at[2, 1, 1].set(1)
