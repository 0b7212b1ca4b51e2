"""A compact decoder after SnapGen's (arXiv 2412.09619): separable convolutions, no attention, few norms."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Latents, Video
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.clip_ops import Clip, frame_conv, shuffle_up
from mobile_video_jax.nn.conv import Conv, default_init
from mobile_video_jax.nn.dense import Dense, Initializer, zeros
from mobile_video_jax.nn.module import partitioned
from mobile_video_jax.nn.norm import RMSNorm
from mobile_video_jax.nn.stream import continues, with_past
from mobile_video_jax.parallel.remat import checkpointed
from mobile_video_jax.vae.config import VaeConfig

LOWEST = 2  # levels with norms and, below a step in time, causal convolutions


class CompactDecoder(nn.Module):
    """Maps latents to clips in about [-1, 1]; convolutions see the past at the two lowest levels alone.

    Raises UserError for features of a conditioning frame, which it has no layers for.
    """

    config: VaeConfig

    @nn.compact
    def __call__(self, latents: Latents, image: Any = None) -> Video:
        cfg, dtype, starts = self.config, jnp.dtype(self.config.dtype), not continues(self)
        if image is not None:
            raise UserError("a compact decoder takes no conditioning frame: set --config.model.omni=False")
        levels = cfg.levels(cfg.decoder_widths, cfg.decoder_depths)
        block = checkpointed(CompactBlock, cfg.remat)
        x = Dense(levels[-1].width, (None, None), dtype=dtype, name="stem")(shuffle_up(latents, 1, cfg.strides.patch))
        for i, level in reversed(list(enumerate(levels))):
            if level.step:
                time, space = level.step
                x = Dense(level.width * time * space**2, (None, None), dtype=dtype, name=f"up_{i}")(x)
                x = shuffle_up(x, time, space, starts=starts)
            is_low = i >= len(levels) - LOWEST
            for j in range(level.depth):
                x = block(level.temporal and is_low, is_low, dtype, name=f"level_{i}_block_{j}")(x)
        x = Conv(3 * cfg.patch**2, False, dtype=dtype, name="pixels")(nn.silu(x))
        return shuffle_up(x.astype(jnp.float32), 1, cfg.patch)


class CompactBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))) of separable convolutions, after a norm if `normalized`; at the start x itself."""

    temporal: bool
    normalized: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Clip:
        y = RMSNorm(axis=None, dtype=self.dtype, name="norm")(x) if self.normalized else x
        y = SeparableConv(self.temporal, dtype=self.dtype, name="conv_in")(nn.silu(y))
        return x + SeparableConv(self.temporal, zeros, self.dtype, name="conv_out")(nn.silu(y))


class SeparableConv(nn.Module):
    """A depthwise 3x3 convolution per frame, or a causal 3x3x3 one if `temporal`, and a pointwise product."""

    temporal: bool
    kernel_init: Initializer = default_init
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Float[Array, "b t h w c"]:
        channels, taps = x.shape[-1], 3 if self.temporal else 1
        shape = (taps, 3, 3, 1, channels)
        kernel = jnp.asarray(self.param("kernel", partitioned(default_init, (None,) * 5), shape), self.dtype)
        x = x.astype(self.dtype)
        past, frames = (with_past(self, x, taps - 1) if self.temporal else x), x.shape[1]
        y = frame_conv(past[:, :frames], kernel[0], depthwise=True)
        for i in range(1, taps):
            y = y + frame_conv(past[:, i : i + frames], kernel[i], depthwise=True)
        return Dense(channels, (None, "conv_out"), self.kernel_init, dtype=self.dtype, name="pointwise")(y)
