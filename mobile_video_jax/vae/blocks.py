"""The two residual blocks of the VAE."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.nn.attention import Attention
from mobile_video_jax.nn.conv import Clip, Conv
from mobile_video_jax.nn.dense import zeros
from mobile_video_jax.nn.norm import RMSNorm
from mobile_video_jax.nn.rope import rope_table


class ConvBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), frame by frame or causal in time."""

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
    """x + attention(norm(x)), block-causal: a place sees every place of its own frame and of earlier ones."""

    head_dim: int
    rope_theta: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Clip:
        b, t, h, w, width = x.shape
        frame = np.repeat(np.arange(t), h * w)
        mask = jnp.asarray(frame[:, None] >= frame[None, :])[None]
        tokens = RMSNorm(axis=None, dtype=self.dtype, name="norm")(x).reshape(b, t * h * w, width)
        attention = Attention(width // self.head_dim, self.head_dim, zeros, self.dtype, name="attention")
        rope = rope_table((t, h, w), self.head_dim, self.rope_theta)
        return x + attention(tokens, rope=rope, mask=mask).reshape(x.shape)
