"""Layers of LTX-Video's VAE, as diffusers' AutoencoderKLLTXVideo computes them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Times
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.nn.clip_ops import Clip, Resized, clip_conv, pad_past, shuffle_down, shuffle_up
from mobile_video_jax.nn.conv import default_init
from mobile_video_jax.nn.dense import Dense, zeros
from mobile_video_jax.nn.embeddings import time_features
from mobile_video_jax.nn.module import partitioned
from mobile_video_jax.nn.norm import rms_normalize
from mobile_video_jax.nn.stream import continues, with_past

EPS = 1e-8
TIME_FEATURES = 256


class LtxConv(nn.Module):
    """A 3-D convolution, zero-padded in space and edge-padded in time.

    If `causal`, all copies are of the first frame, in front; otherwise half are of the last frame, at the end.
    """

    features: int
    causal: bool
    size: int = 3
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Resized:
        axes = (None, None, None, "conv_in", "conv_out")
        shape = (self.size,) * 3 + (x.shape[-1], self.features)
        kernel = self.param("kernel", partitioned(default_init, axes), shape).astype(self.dtype)
        bias: jax.Array = self.param("bias", partitioned(zeros, axes[-1:]), (self.features,))
        x = self._padded_in_time(x.astype(self.dtype))
        y = clip_conv(x, kernel) if self.stride == 1 else self._strided(x, kernel)
        return y + bias.astype(self.dtype)

    def _padded_in_time(self, x: Clip) -> Resized:
        if not self.causal:
            side = (self.size // 2, self.size // 2)
            return jnp.pad(x, ((0, 0), side, (0, 0), (0, 0), (0, 0)), mode="edge")
        # In a later chunk of a stream, the last stride has covered the first of the past frames.
        covered = self.stride - 1 if self.stride > 1 and continues(self) else 0
        return with_past(self, x, self.size - 1)[:, covered:]

    def _strided(self, x: Clip, kernel: Float[Array, "k k k c o"]) -> Resized:
        side = (self.size // 2, self.size // 2)
        numbers = ("NDHWC", "DHWIO", "NDHWC")
        return lax.conv_general_dilated(x, kernel, (self.stride,) * 3, ((0, 0), side, side), dimension_numbers=numbers)


class ResBlock(nn.Module):
    """skip(x) + conv(silu(norm(conv(silu(norm(x)))))), where skip is x, or conv(norm(x)) if the width changes.

    `time` [4 c], the embedded timestep, shifts and scales both norms' outputs, together with a learned table. With
    `noise`, noise [h w] is added after each convolution, equal in all frames and scaled per channel. It is sampled from
    a fixed key for the layer's name, so that decoding is a function of the latents.
    """

    width: int
    causal: bool
    noise: bool = False
    norm_epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip, time: Float[Array, "d"] | None = None) -> Float[Array, "b t h w o"]:
        y, modulation = x, None if time is None else shifts_and_scales(self, time, 4)
        for i in (1, 2):
            y = rms_normalize(y, EPS)
            if modulation is not None:
                y = shift_and_scale(y, modulation[2 * i - 2], modulation[2 * i - 1])
            y = LtxConv(self.width, self.causal, dtype=self.dtype, name=f"conv{i}")(nn.silu(y))
            if self.noise:
                scale = self.param(f"per_channel_scale{i}", partitioned(zeros, (None,)), (self.width,))
                noise = fixed_noise("/".join((*self.path, f"noise{i}")), *y.shape[2:4])
                y = y + (noise[..., None] * scale).astype(self.dtype)
        if self.width == x.shape[-1]:
            return x + y
        # Flax's fast variance is the difference of two sums, which can cancel.
        x = nn.LayerNorm(self.norm_epsilon, use_fast_variance=False, dtype=self.dtype, name="norm3")(x)
        return y + LtxConv(self.width, self.causal, 1, dtype=self.dtype, name="conv_shortcut")(x)


class Downsample(nn.Module):
    """Pixel unshuffle of a causal convolution of the input, plus that of the input averaged over groups of channels.

    The downsampling of releases since 0.9.5. At the start of a clip the first frame is repeated to fill a block.
    """

    features: int
    time: int
    space: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Resized:
        x = x if continues(self) else pad_past(x, self.time - 1)
        skip = pixels_to_channels(x, self.time, self.space)
        skip = skip.reshape(*skip.shape[:-1], self.features, -1).mean(-1)
        y = LtxConv(self.features // (self.time * self.space**2), True, dtype=self.dtype, name="conv")(x)
        return skip + pixels_to_channels(y, self.time, self.space)


class Upsample(nn.Module):
    """Pixel shuffle (2x2x2) of a convolution, with `factor` times fewer channels than the input.

    With `residual`, the shuffled input is added, its channels repeated to as many. Drops the copies of a clip's first
    frame.
    """

    factor: int
    residual: bool
    causal: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Resized:
        starts, channels = not continues(self), x.shape[-1]
        y = LtxConv(8 * channels // self.factor, self.causal, dtype=self.dtype, name="conv")(x)
        y = channels_to_pixels(y, 2, 2, starts=starts)
        if not self.residual:
            return y
        return y + jnp.tile(channels_to_pixels(x, 2, 2, starts=starts), 8 // self.factor)


class TimeEmbedding(nn.Module):
    """linear(silu(linear(cosines and sines of the time))), PixArt's (arXiv 2310.00426), for times in [0, 1]."""

    features: int

    @nn.compact
    def __call__(self, time: Times) -> Float[Array, "b f"]:
        x = Dense(self.features, (None, None), name="linear_1")(time_features(time, TIME_FEATURES))
        return Dense(self.features, (None, None), name="linear_2")(nn.silu(x))


def shifts_and_scales(module: nn.Module, time: Float[Array, "d"], count: int) -> Float[Array, "k c"]:
    """The embedded timestep [count c] plus the module's learned table: shift, scale, shift, scale, ..."""
    shape = (count, time.shape[0] // count)
    table: jax.Array = module.param("scale_shift_table", partitioned(zeros, (None, None)), shape)
    return time.reshape(shape) + table


def shift_and_scale(x: Clip, shift: Float[Array, "c"], scale: Float[Array, "c"]) -> Clip:
    """x (1 + scale) + shift."""
    return (x * (1 + scale) + shift).astype(x.dtype)


def fixed_noise(name: str, *shape: int) -> jax.Array:
    """Standard normal values that depend on the name and the shape alone."""
    return jax.random.normal(named_key(jax.random.key(0), name), shape)


def pixels_to_channels(x: Clip, time: int, space: int) -> Resized:
    """shuffle_down in the published order: pixel p of channel c is channel c * pixels + p, not p * channels + c."""
    return _transposed_channels(shuffle_down(x, time, space, starts=False), x.shape[-1])


def channels_to_pixels(x: Clip, time: int, space: int, *, starts: bool) -> Resized:
    """Inverse of pixels_to_channels; drops the copies of a clip's first frame."""
    return shuffle_up(_transposed_channels(x, time * space**2), time, space, starts=starts)


def pixels_to_patches(video: Clip, side: int) -> Resized:
    """Moves square patches of each frame into channels, pixels in column order as in the release."""
    return pixels_to_channels(video.swapaxes(2, 3), 1, side).swapaxes(2, 3)


def patches_to_pixels(x: Clip, side: int) -> Resized:
    """Inverse of pixels_to_patches."""
    return channels_to_pixels(x.swapaxes(2, 3), 1, side, starts=False).swapaxes(2, 3)


def _transposed_channels(x: Clip, inner: int) -> Clip:
    """Reorders channels: the one at o * inner + i moves to i * outer + o."""
    return x.reshape(*x.shape[:-1], -1, inner).swapaxes(-1, -2).reshape(x.shape)
