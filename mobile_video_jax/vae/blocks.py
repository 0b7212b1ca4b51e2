"""Residual blocks of the VAE: convolutions and causal attention."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mobile_video_jax.nn.attention.layer import Attention
from mobile_video_jax.nn.clip_ops import Clip
from mobile_video_jax.nn.conv import Conv
from mobile_video_jax.nn.dense import zeros
from mobile_video_jax.nn.embeddings import rope_table
from mobile_video_jax.nn.norm import RMSNorm
from mobile_video_jax.nn.stream import with_past


class ConvBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), 2-D per frame or causal in 3-D if `temporal`."""

    temporal: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Clip:
        width = x.shape[-1]
        y = nn.silu(RMSNorm(axis=None, dtype=self.dtype, name="norm_in")(x))
        y = Conv(width, self.temporal, dtype=self.dtype, name="conv_in")(y)
        y = nn.silu(RMSNorm(axis=None, dtype=self.dtype, name="norm_out")(y))
        return x + Conv(width, self.temporal, zeros, dtype=self.dtype, name="conv_out")(y)


class AttentionBlock(nn.Module):
    """x + attention(norm(x)), block-causal: a position sees its own frame and the `window` - 1 frames before it.

    In H3AE (arXiv 2504.10567) it sees every earlier frame; a window makes memory linear in length and the state of a
    stream finite. Copies of the first frame precede it, as for a causal convolution.
    """

    head_dim: int
    window: int
    rope_theta: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Clip:
        b, t, h, w, width = x.shape
        y = RMSNorm(axis=None, dtype=self.dtype, name="norm")(x)
        past = with_past(self, y, self.window - 1)
        context = jnp.stack([past[:, i : i + t] for i in range(self.window)], axis=2)
        cos, sin = rope_table((self.window, h, w), self.head_dim, self.rope_theta)
        attention = Attention(width // self.head_dim, self.head_dim, zeros, self.dtype, name="attention")
        y = attention(
            y.reshape(b * t, h * w, width),
            context.reshape(b * t, self.window * h * w, width),
            rope=(cos[-h * w :], sin[-h * w :]),
            context_rope=(cos, sin),
        )
        return x + y.reshape(x.shape)
