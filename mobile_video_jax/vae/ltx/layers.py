"""The layers of LTX-Video's VAE, as diffusers' AutoencoderKLLTXVideo computes them."""

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
    """A convolution in time and space, zero-padded in space.

    Copies of the first frame stand before it, and where it is not `causal` half of them are of the last frame, behind.
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
        bias = self.param("bias", partitioned(zeros, axes[-1:]), (self.features,)).astype(self.dtype)
        x = self._padded_in_time(x.astype(self.dtype))
        return (clip_conv(x, kernel) if self.stride == 1 else self._strided(x, kernel)) + bias

    def _padded_in_time(self, x: Clip) -> Resized:
        if not self.causal:
            side = (self.size // 2, self.size // 2)
            return jnp.pad(x, ((0, 0), side, (0, 0), (0, 0), (0, 0)), mode="edge")
        # The first frames of what came before lie behind a stream's last stride.
        covered = self.stride - 1 if self.stride > 1 and continues(self) else 0
        return with_past(self, x, self.size - 1)[:, covered:]

    def _strided(self, x: Clip, kernel: Float[Array, "k k k c o"]) -> Resized:
        side = (self.size // 2, self.size // 2)
        numbers = ("NDHWC", "DHWIO", "NDHWC")
        return lax.conv_general_dilated(x, kernel, (self.stride,) * 3, ((0, 0), side, side), dimension_numbers=numbers)


class ResBlock(nn.Module):
    """skip(x) + conv(silu(norm(conv(silu(norm(x)))))), where skip is x, or where the width changes conv(norm(x)).

    With `time` [4 * c], the embedded timestep, the two norms are shifted and scaled by it and a learned table. With
    `noise`, noise [h w] follows each convolution, the same in all frames and, by a learned scale, in all channels. It
    is drawn from a fixed key for the layer's name, so that decoding is a function of the latents.
    """

    width: int
    causal: bool
    noise: bool = False
    norm_epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip, time: Float[Array, "d"] | None = None) -> Float[Array, "b t h w o"]:
        y, changes = x, None if time is None else shifts_and_scales(self, time, 4)
        for i in (1, 2):
            y = rms_normalize(y, EPS)
            if changes is not None:
                y = shifted_and_scaled(y, changes[2 * i - 2], changes[2 * i - 1])
            y = LtxConv(self.width, self.causal, dtype=self.dtype, name=f"conv{i}")(nn.silu(y))
            if self.noise:
                scale = self.param(f"per_channel_scale{i}", partitioned(zeros, (None,)), (self.width,))
                drawn = fixed_noise("/".join((*self.path, f"noise{i}")), *y.shape[2:4])
                y = y + (drawn[..., None] * scale).astype(self.dtype)
        if self.width == x.shape[-1]:
            return x + y
        # Flax' quick variance is the difference of two sums, which can cancel.
        x = nn.LayerNorm(self.norm_epsilon, use_fast_variance=False, dtype=self.dtype, name="norm3")(x)
        return y + LtxConv(self.width, self.causal, 1, dtype=self.dtype, name="conv_shortcut")(x)


class Downsample(nn.Module):
    """Pixels into channels, of a causal convolution of the input plus, averaged over groups, of the input itself.

    The step down of releases from 0.9.5 on. Where a clip starts and time shrinks, the first frame is repeated.
    """

    features: int
    time: int
    space: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Resized:
        x = x if continues(self) else pad_past(x, self.time - 1)
        kept = pixels_to_channels(x, self.time, self.space)
        kept = kept.reshape(*kept.shape[:-1], self.features, -1).mean(-1)
        y = LtxConv(self.features // (self.time * self.space**2), True, dtype=self.dtype, name="conv")(x)
        return kept + pixels_to_channels(y, self.time, self.space)


class Upsample(nn.Module):
    """Channels into 2x2x2 pixels, of a convolution that leaves `factor` times fewer channels than there were.

    With `residual`, the moved channels of the input are added, repeated to as many. The copies of a clip's first frame
    are dropped.
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
    """linear(silu(linear(cosines and sines of the timestep))), PixArt's (arXiv 2310.00426), for steps of 0 .. 1."""

    features: int

    @nn.compact
    def __call__(self, time: Times) -> Float[Array, "b f"]:
        x = Dense(self.features, (None, None), name="linear_1")(time_features(time, TIME_FEATURES))
        return Dense(self.features, (None, None), name="linear_2")(nn.silu(x))


def shifts_and_scales(module: nn.Module, time: Float[Array, "d"], count: int) -> Float[Array, "k c"]:
    """The embedded timestep [count * c] plus the module's own table: shift, scale, shift, scale, ..."""
    shape = (count, time.shape[0] // count)
    return time.reshape(shape) + module.param("scale_shift_table", partitioned(zeros, (None, None)), shape)


def shifted_and_scaled(x: Clip, shift: Float[Array, "c"], scale: Float[Array, "c"]) -> Clip:
    """x (1 + scale) + shift."""
    return (x * (1 + scale) + shift).astype(x.dtype)


def fixed_noise(name: str, *shape: int) -> jax.Array:
    """Standard normal values that are the same for the same name and shape."""
    return jax.random.normal(named_key(jax.random.key(0), name), shape)


def pixels_to_channels(x: Clip, time: int, space: int) -> Resized:
    """shuffle_down in the published order: place p of channel c is channel c * places + p, not p * channels + c."""
    return _recounted(shuffle_down(x, time, space, starts=False), x.shape[-1])


def channels_to_pixels(x: Clip, time: int, space: int, *, starts: bool) -> Resized:
    """The inverse of pixels_to_channels; copies of a clip's first frame are dropped."""
    return shuffle_up(_recounted(x, time * space**2), time, space, starts=starts)


def pixels_to_patches(video: Clip, side: int) -> Resized:
    """Square patches of each frame into channels, their pixels counted column by column as in the release."""
    return pixels_to_channels(video.swapaxes(2, 3), 1, side).swapaxes(2, 3)


def patches_to_pixels(x: Clip, side: int) -> Resized:
    """The inverse of pixels_to_patches."""
    return channels_to_pixels(x.swapaxes(2, 3), 1, side, starts=False).swapaxes(2, 3)


def _recounted(x: Clip, inner: int) -> Clip:
    """Channels counted outer * inner + i for those counted i * outer + o."""
    return x.reshape(*x.shape[:-1], -1, inner).swapaxes(-1, -2).reshape(x.shape)
