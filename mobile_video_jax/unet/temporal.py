"""Layers over time of the U-Net, the kinds that SnapGen-V searches among (arXiv 2412.10494).

The paper names convolutions, self- and cross-attention, in 1-D along time at each position or in 3-D; their sizes, and
what cross-attention looks at, are chosen here. All add to their input and are zero at the start.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from mobile_video_jax.nn.clip_ops import Clip, clip_conv, depthwise_conv
from mobile_video_jax.nn.dense import Dense, zeros
from mobile_video_jax.nn.embeddings import rope_table
from mobile_video_jax.nn.module import partitioned
from mobile_video_jax.nn.norm import RMSNorm
from mobile_video_jax.parallel.remat import checkpointed
from mobile_video_jax.unet.block import GatedFeedForward, default_init, shared_attention
from mobile_video_jax.unet.config import UnetConfig

FrameMask = Bool[Array, "b t"]  # False = padding of the clip
ALONG_TIME = "along_time"  # the attention of attention1d; cost.phone.trace knows the name


class TemporalLayers(nn.Module):
    """The layers of one kind behind a place, one for each of its transformer blocks; clips of one frame skip them."""

    kind: str
    level: int
    config: UnetConfig

    @nn.compact
    def __call__(self, x: Clip, mask: FrameMask | None = None) -> Clip:
        if x.shape[1] == 1 and not self.is_initializing():
            return x
        y, layer = x, checkpointed(LAYERS[self.kind], self.config.remat)
        for k in range(max(1, self.config.blocks[self.level])):
            y = layer(self.kind, self.config, name=f"layer_{k}")(y, mask)
        return y if mask is None else jnp.where(_of_clips(jnp.sum(mask, axis=1) > 1), y, x)


class TimeConv(nn.Module):
    """x + conv(silu(norm(x))), over three frames, and in 3-D 3x3 positions; clips are padded with zeros."""

    kind: str
    config: UnetConfig

    @nn.compact
    def __call__(self, x: Clip, mask: FrameMask | None) -> Clip:
        cfg, dtype, channels = self.config, jnp.dtype(self.config.dtype), x.shape[-1]
        y = nn.silu(RMSNorm(axis=None, dtype=dtype, name="norm")(x))
        y = y if mask is None else y * _of_clips(mask).astype(dtype)
        y = jnp.pad(y, [(0, 0), (1, 1), (0, 0), (0, 0), (0, 0)])
        if cfg.separable:
            y = depthwise_conv(y, self._kernel(1, channels, (None, None), default_init, dtype)[..., 0, :])
            return x + Dense(channels, (None, "conv_out"), zeros, dtype=dtype, name="pointwise")(y)
        y = clip_conv(y, self._kernel(channels, channels, ("conv_in", "conv_out"), zeros, dtype))
        bias: jax.Array = self.param("bias", partitioned(zeros, ("conv_out",)), (channels,))
        return x + y + bias.astype(dtype)

    def _kernel(self, inputs: int, outputs: int, axes: tuple[Any, Any], init: Any, dtype: Any) -> jax.Array:
        size = 3 if self.kind == "conv3d" else 1
        kernel = self.param("kernel", partitioned(init, (None, None, None, *axes)), (3, size, size, inputs, outputs))
        return jnp.asarray(kernel, dtype)


class TimeAttention(nn.Module):
    """Attention, then a gated FFN.

    attention1d looks along time from each position, attention3d from every position at every one, and cross at those of
    the clip's first frame (as in arXiv 2212.11565). Positions are rotated by frame, row and column.
    """

    kind: str
    config: UnetConfig

    @nn.compact
    def __call__(self, x: Clip, mask: FrameMask | None) -> Clip:
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        y = RMSNorm(axis=None, dtype=dtype, name="norm")(x)
        x = x + (self._along_time(y, mask) if self.kind == "attention1d" else self._in_clips(y, mask))
        y = RMSNorm(axis=None, dtype=dtype, name="ffn_norm")(x)
        ffn = GatedFeedForward(cfg.ffn_ratio * x.shape[-1], dtype, name="ffn")
        return x + ffn(y.reshape(x.shape[0], -1, x.shape[-1])).reshape(x.shape)

    def _along_time(self, x: Clip, mask: FrameMask | None) -> Clip:
        b, t, h, w, width = x.shape
        rope = rope_table((t, 1, 1), self.config.head_dim, self.config.rope_theta)
        mask = None if mask is None else jnp.repeat(mask, h * w, axis=0)[:, None]
        lines = x.transpose(0, 2, 3, 1, 4).reshape(b * h * w, t, width)
        y = shared_attention(self.config, width, ALONG_TIME)(lines, rope=rope, mask=mask)
        return y.reshape(b, h, w, t, width).transpose(0, 3, 1, 2, 4)

    def _in_clips(self, x: Clip, mask: FrameMask | None) -> Clip:
        b, t, h, w, width = x.shape
        rope = rope_table((t, h, w), self.config.head_dim, self.config.rope_theta)
        attention = shared_attention(self.config, width, "attention")
        tokens = x.reshape(b, t * h * w, width)
        if self.kind == "cross":
            first = (rope[0][: h * w], rope[1][: h * w])
            return attention(tokens, tokens[:, : h * w], rope=rope, context_rope=first).reshape(x.shape)
        mask = None if mask is None else jnp.repeat(mask, h * w, axis=1)[:, None]
        return attention(tokens, rope=rope, mask=mask).reshape(x.shape)


# A layer of each kind, by its kind and the network's config.
LAYERS: dict[str, type[nn.Module]] = {
    "conv1d": TimeConv,
    "conv3d": TimeConv,
    "attention1d": TimeAttention,
    "attention3d": TimeAttention,
    "cross": TimeAttention,
}


def _of_clips(mask: Bool[Array, "b *t"]) -> Bool[Array, "b *_"]:
    """A mask of clips or of their frames, to be used on feature maps."""
    return mask.reshape(*mask.shape, *(1,) * (5 - mask.ndim))
