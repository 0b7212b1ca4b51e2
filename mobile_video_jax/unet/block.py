"""Blocks of the U-Net within each frame: convolutions, residual blocks, transformer blocks."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import TextMask, TextStates, Tokens
from mobile_video_jax.nn.clip_ops import Clip, frame_conv
from mobile_video_jax.nn.dense import Dense, Initializer, zeros
from mobile_video_jax.nn.embeddings import rope_table
from mobile_video_jax.nn.module import partitioned
from mobile_video_jax.nn.norm import RMSNorm
from mobile_video_jax.parallel.remat import checkpointed
from mobile_video_jax.unet.attention import SharedAttention
from mobile_video_jax.unet.config import UnetConfig

Widened = Float[Array, "b t h w o"]

default_init = nn.initializers.lecun_normal()


class Conditions(NamedTuple):
    """Inputs that all blocks share beside the feature map."""

    embedding: Float[Array, "b f d"]  # of the time, one per clip (f = 1) or latent frame, and of the pooled text
    text: TextStates
    text_mask: TextMask  # False = padding of the caption
    frame_mask: Bool[Array, "b t"] | None = None  # False = padding of the clip


class FrameConv(nn.Module):
    """A 3x3 convolution of each frame: of all channels at once, or `separable` a depthwise and a pointwise one."""

    features: int
    separable: bool
    kernel_init: Initializer = default_init
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip) -> Float[Array, "b t h_out w_out o"]:
        channels = x.shape[-1]
        if not self.separable:
            kernel = self._kernel((3, 3, channels, self.features), ("conv_in", "conv_out"), self.kernel_init)
            y = frame_conv(x.astype(self.dtype), kernel, stride=self.stride)
            bias: jax.Array = self.param("bias", partitioned(zeros, ("conv_out",)), (self.features,))
            return y + bias.astype(self.dtype)
        kernel = self._kernel((3, 3, 1, channels), (None, None), default_init)
        y = frame_conv(x.astype(self.dtype), kernel, stride=self.stride, depthwise=True)
        return Dense(self.features, (None, "conv_out"), self.kernel_init, dtype=self.dtype, name="pointwise")(y)

    def _kernel(self, shape: tuple[int, ...], axes: tuple[str | None, ...], init: Initializer) -> jax.Array:
        return jnp.asarray(self.param("kernel", partitioned(init, (None, None, *axes)), shape), self.dtype)


class ResidualBlock(nn.Module):
    """skip(x) + conv(silu(norm(conv(silu(norm(x))) + embedding))); the last convolution is zero at the start."""

    width: int
    config: UnetConfig

    @nn.compact
    def __call__(self, x: Clip, embedding: Float[Array, "b f d"]) -> Widened:
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        inner = cfg.expansion * self.width
        y = nn.silu(RMSNorm(axis=None, dtype=dtype, name="norm_in")(x))
        y = FrameConv(inner, cfg.separable, dtype=dtype, name="conv_in")(y)
        shift = Dense(inner, ("embed", None), dtype=dtype, name="embedding")(nn.silu(embedding))
        y = nn.silu(RMSNorm(axis=None, dtype=dtype, name="norm_out")(y + shift[:, :, None, None]))
        y = FrameConv(self.width, cfg.separable, zeros, dtype=dtype, name="conv_out")(y)
        if x.shape[-1] != self.width:
            x = Dense(self.width, (None, "conv_out"), dtype=dtype, name="skip")(x)
        return x + y


class TransformerBlock(nn.Module):
    """Self-attention within each frame if the level has it, cross-attention to the text, a gated FFN."""

    level: int
    config: UnetConfig

    @nn.compact
    def __call__(self, x: Clip, text: TextStates, text_mask: TextMask) -> Clip:
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        b, t, h, w, width = x.shape
        if cfg.has_self_attention(self.level):
            rope = rope_table((1, h, w), cfg.head_dim, cfg.rope_theta)
            frames = self._norm("self_attention_norm", x).reshape(b * t, h * w, width)
            x = x + shared_attention(cfg, width, "self_attention")(frames, rope=rope).reshape(x.shape)
        tokens = x.reshape(b, t * h * w, width)
        queries = self._norm("cross_attention_norm", tokens)
        tokens = tokens + shared_attention(cfg, width, "cross_attention")(queries, text, mask=text_mask[:, None])
        ffn = GatedFeedForward(cfg.ffn_ratio * width, dtype, name="ffn")
        return (tokens + ffn(self._norm("ffn_norm", tokens))).reshape(x.shape)

    def _norm(self, name: str, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        return RMSNorm(axis=None, dtype=jnp.dtype(self.config.dtype), name=name)(x)


class Site(nn.Module):
    """A residual block, and the transformer blocks behind it."""

    level: int
    config: UnetConfig

    @nn.compact
    def __call__(self, x: Clip, conditions: Conditions) -> Widened:
        cfg = self.config
        residual = checkpointed(ResidualBlock, cfg.remat)(cfg.widths[self.level], cfg, name="residual")
        x = residual(x, conditions.embedding)
        block = checkpointed(TransformerBlock, cfg.remat)
        for k in range(cfg.blocks[self.level]):
            x = block(self.level, cfg, name=f"block_{k}")(x, conditions.text, conditions.text_mask)
        return x


def shared_attention(cfg: UnetConfig, width: int, name: str) -> SharedAttention:
    """Attention of a level of this width."""
    heads = width // cfg.head_dim
    return SharedAttention(heads, 1 if cfg.multi_query else heads, cfg.head_dim, jnp.dtype(cfg.dtype), name=name)


class GatedFeedForward(nn.Module):
    """(x V * gelu(x W)) U with biases, GEGLU of arXiv 2002.05202; zero at the start."""

    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        gate = Dense(self.hidden, ("embed", "ffn"), dtype=self.dtype, name="gate")(x)
        value = Dense(self.hidden, ("embed", "ffn"), dtype=self.dtype, name="value")(x)
        gate = nn.gelu(gate.astype(jnp.float32), approximate=True).astype(self.dtype)
        return Dense(x.shape[-1], ("ffn", "embed"), zeros, dtype=self.dtype, name="out")(value * gate)
