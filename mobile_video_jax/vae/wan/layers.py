"""Layers of Wan's VAE: causal convolutions, residual and attention blocks, and changes of resolution.

A clip's first frame is coded alone: steps in time leave it as it is.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mobile_video_jax.nn.clip_ops import Clip, Resized, clip_conv, frame_conv
from mobile_video_jax.nn.conv import default_init
from mobile_video_jax.nn.dense import Dense, zeros
from mobile_video_jax.nn.norm import rms_normalize
from mobile_video_jax.nn.stream import with_past

EPS = 1e-24  # of the mean square: the published norm divides by the length, 1e-12 at least


class WanConv(nn.Module):
    """A convolution that is causal in time, with zeros before a clip, and zero-padded in space."""

    features: int
    size: tuple[int, int, int] = (3, 3, 3)  # frames, rows, columns
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Float[Array, "b t h w o"]:
        kernel, bias = _conv_params(self, (*self.size, x.shape[-1], self.features))
        past = self.size[0] - 1
        padded = with_past(self, x.astype(self.dtype), past, zeros=True) if past else x.astype(self.dtype)
        if not x.shape[1]:
            return jnp.zeros((*x.shape[:-1], self.features), self.dtype)
        return clip_conv(padded, kernel.astype(self.dtype)) + bias.astype(self.dtype)


class FrameConv(nn.Module):
    """A 3x3 convolution of each frame; with `stride` 2 zeros are added below and to the right alone."""

    features: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Resized:
        kernel, bias = _conv_params(self, (3, 3, x.shape[-1], self.features))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.stride == 1:
            return frame_conv(x, kernel) + bias.astype(self.dtype)
        frames = x.reshape(-1, *x.shape[2:])
        y = lax.conv_general_dilated(
            frames, kernel, (2, 2), ((0, 1), (0, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y.reshape(*x.shape[:2], *y.shape[1:]) + bias.astype(self.dtype)


class Norm(nn.Module):
    """RMS normalisation over channels, with a learned scale."""

    @nn.compact
    def __call__(self, x: Clip) -> Clip:
        scale: jax.Array = self.param("scale", nn.initializers.ones_init(), x.shape[-1:])
        return (rms_normalize(x.astype(jnp.float32), EPS) * scale).astype(x.dtype)


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), x by a convolution of size 1 where the width changes."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Float[Array, "b t h w o"]:
        y = x
        for i in (1, 2):
            y = WanConv(self.features, dtype=self.dtype, name=f"conv{i}")(nn.silu(Norm(name=f"norm{i}")(y)))
        if x.shape[-1] != self.features:
            x = WanConv(self.features, (1, 1, 1), self.dtype, name="conv_shortcut")(x)
        return x + y


class AttentionBlock(nn.Module):
    """x + attention of one head among the positions of each frame."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Clip:
        b, t, h, w, c = x.shape
        qkv = Dense(3 * c, (None, None), dtype=self.dtype, name="to_qkv")(Norm(name="norm")(x))
        q, k, v = jnp.split(qkv.reshape(b * t, h * w, 1, 3 * c), 3, axis=-1)
        attended = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        return x + Dense(c, (None, None), dtype=self.dtype, name="proj")(attended)


class Downsample(nn.Module):
    """Half the rows and columns and, with `time`, half the frames after the first: k 2 + 1 become k + 1."""

    time: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip, starts: bool) -> Resized:
        x = FrameConv(x.shape[-1], stride=2, dtype=self.dtype, name="resample")(x)
        if not self.time:
            return x
        kernel, bias = _conv_params(self, (3, 1, 1, x.shape[-1], x.shape[-1]))
        frames = with_past(self, x, 1, zeros=True)[:, int(starts) :]
        taps = [frames[:, i : frames.shape[1] - 2 + i : 2] if frames.shape[1] > 2 else frames[:, :0] for i in range(3)]
        y = jnp.einsum("kbthwc,kco->bthwo", jnp.stack(taps), kernel[:, 0, 0].astype(self.dtype))
        y = y + bias.astype(self.dtype)
        return jnp.concatenate([x[:, :1], y], axis=1) if starts else y


class Upsample(nn.Module):
    """Twice the rows and columns and, with `time`, two frames for each but the first."""

    features: int
    time: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip, starts: bool) -> Resized:
        if self.time:
            first, later = x[:, : int(starts)], x[:, int(starts) :]
            pairs = WanConv(2 * x.shape[-1], (3, 1, 1), self.dtype, name="time_conv")(later)
            b, t, h, w, _ = pairs.shape
            pairs = pairs.reshape(b, t, h, w, 2, x.shape[-1]).transpose(0, 1, 4, 2, 3, 5)
            pairs = pairs.reshape(b, 2 * t, h, w, x.shape[-1])
            x = jnp.concatenate([first, pairs], axis=1)
        x = jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3)
        return FrameConv(self.features, dtype=self.dtype, name="resample")(x)


def averaged(x: Clip, features: int, time: int, space: int, starts: bool) -> Resized:
    """Means over blocks of time x space x space positions and equal groups of channels; zeros before a clip."""
    x = jnp.pad(x, [(0, 0), (time - 1 if starts else 0, 0), (0, 0), (0, 0), (0, 0)])
    b, t, h, w, c = x.shape
    x = x.reshape(b, t // time, time, h // space, space, w // space, space, c).transpose(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(b, t // time, h // space, w // space, features, -1).mean(-1)


def duplicated(x: Clip, features: int, time: int, space: int, starts: bool) -> Resized:
    """The inverse resolution of `averaged`: channels are repeated into blocks; a clip's first frame stays one."""
    b, t, h, w, c = x.shape
    x = jnp.repeat(x, features * time * space**2 // c, axis=-1).reshape(b, t, h, w, features, time, space, space)
    x = x.transpose(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, t * time, h * space, w * space, features)
    return x[:, time - 1 if starts else 0 :]


def _conv_params(module: nn.Module, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    kernel: jax.Array = module.param("kernel", default_init, shape)
    bias: jax.Array = module.param("bias", zeros, shape[-1:])
    return kernel, bias
