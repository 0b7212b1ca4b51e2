"""Convolutions over clips: frame by frame in 2-D, and causal in 3-D."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mobile_video_jax.nn.dense import Initializer, zeros
from mobile_video_jax.nn.module import partitioned

Clip = Float[Array, "b t h w c"]
Resized = Float[Array, "_ _ _ _ _"]
default_init = nn.initializers.lecun_normal()


def frame_conv(x: Clip, kernel: Float[Array, "kh kw c o"]) -> Float[Array, "b t h w o"]:
    """Convolves each frame on its own, zero-padded to the same size."""
    frames = x.reshape(-1, *x.shape[2:])
    y = lax.conv_general_dilated(frames, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y.reshape(*x.shape[:2], *y.shape[1:])


def clip_conv(x: Clip, kernel: Float[Array, "kt kh kw c o"]) -> Resized:
    """Convolves over time without padding and over space zero-padded to the same size.

    XLA's CPU back end is about four times slower on a 3-D convolution than on the same sum of 2-D ones.
    """
    return lax.platform_dependent(x, kernel, cpu=_sum_of_taps, default=_native)


def _native(x: Clip, kernel: Float[Array, "kt kh kw c o"]) -> Resized:
    height, width = kernel.shape[1:3]
    padding = ((0, 0), ((height - 1) // 2, height // 2), ((width - 1) // 2, width // 2))
    return lax.conv_general_dilated(x, kernel, (1, 1, 1), padding, dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))


def _sum_of_taps(x: Clip, kernel: Float[Array, "kt kh kw c o"]) -> Resized:
    taps = kernel.shape[0]
    length = x.shape[1] - taps + 1
    total = frame_conv(x[:, :length], kernel[0])
    for tap in range(1, taps):
        total = total + frame_conv(x[:, tap : tap + length], kernel[tap])
    return total


def pad_past(x: Clip, count: int) -> Resized:
    """Puts `count` copies of the first frame in front, so that a causal layer keeps the frame count."""
    return jnp.concatenate([jnp.repeat(x[:, :1], count, axis=1), x], axis=1) if count else x


class Conv(nn.Module):
    """A 3x3 convolution of each frame, or a causal 3x3x3 one when `temporal`: frame t sees t-2, t-1 and t."""

    features: int
    temporal: bool
    kernel_init: Initializer = default_init
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Float[Array, "b t h w o"]:
        shape = (3,) * (3 if self.temporal else 2) + (x.shape[-1], self.features)
        axes = (None,) * (len(shape) - 2) + ("conv_in", "conv_out")
        kernel = self.param("kernel", partitioned(self.kernel_init, axes), shape)
        bias = self.param("bias", partitioned(zeros, axes[-1:]), (self.features,))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = clip_conv(pad_past(x, 2), kernel) if self.temporal else frame_conv(x, kernel)
        return y + bias.astype(self.dtype)


def shuffle_down(x: Clip, time: int, space: int) -> Resized:
    """Moves blocks of time x space x space pixels into channels (pixel-unshuffle); the first frame is repeated.

    [b, t, h, w, c] becomes [b, (t + time - 1) / time, h / space, w / space, c * time * space^2].
    """
    x = pad_past(x, time - 1)
    b, t, h, w, c = x.shape
    x = x.reshape(b, t // time, time, h // space, space, w // space, space, c)
    x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(b, t // time, h // space, w // space, -1)


def shuffle_up(x: Clip, time: int, space: int) -> Resized:
    """The inverse of shuffle_down (PixelShuffle, arXiv 1609.05158); the copies of the first frame are dropped."""
    b, t, h, w, c = x.shape
    x = x.reshape(b, t, h, w, time, space, space, c // (time * space**2))
    x = x.transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(b, t * time, h * space, w * space, -1)[:, time - 1 :]
