"""One transformer block: modulated self-attention, cross-attention to the text, modulated FFN."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import TextMask, TextStates, Tokens
from mobile_video_jax.dit.config import BlockShape, Norms
from mobile_video_jax.dit.masks import ALL, Masks
from mobile_video_jax.dit.modulation import Modulation, gate, modulate, modulation_table
from mobile_video_jax.nn.attention.layer import Attention
from mobile_video_jax.nn.dense import xavier, zeros
from mobile_video_jax.nn.ffn import FeedForward
from mobile_video_jax.nn.norm import rms_normalize
from mobile_video_jax.nn.rope import RopeTable, select_heads


class DitBlock(nn.Module):
    """The block of PixArt-alpha (arXiv 2310.00426): one adaLN shared by all blocks plus a table of its own.

    x += gate1 * self_attention(norm(x) * (1 + scale1) + shift1)
    x += cross_attention(x, text)
    x += gate2 * ffn(norm(x) * (1 + scale2) + shift2)

    The gates' tables and the cross-attention's last matrix start at zero, so a fresh block is the identity. Tokens
    where `mask` is False, the padding of clips, are attended by none. A block multiplies all that it adds to x by its
    mask in `keep`. Of a RoPE table for many heads its own take the parts of `rope_heads`, or the first ones.
    """

    shape: BlockShape
    head_dim: int
    dtype: Any = jnp.float32
    norms: Norms = Norms()
    rope_heads: tuple[int, ...] = ()

    @nn.compact
    def __call__(
        self,
        x: Tokens,
        modulation: Modulation,
        text: TextStates,
        text_mask: TextMask,
        rope: RopeTable,
        mask: Bool[Array, "b n"] | None = None,
        keep: Masks = ALL,
    ) -> Tokens:
        keys = None if mask is None else mask[:, None, :]
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation_table(self, modulation)
        norms, rope = self.norms, select_heads(rope, self.rope_heads or range(self.shape.heads))
        qk_norm = norms.qk_across_heads, norms.qk_eps
        attention = Attention(self.shape.heads, self.head_dim, xavier, self.dtype, *qk_norm, name="self_attention")
        modulated = modulate(rms_normalize(x, norms.eps), shift1, scale1)
        attended = attention(modulated, rope=rope, mask=keys, keep=keep.heads)
        x = x + _kept(gate(attended, gate1), keep.block)
        cross = Attention(self.shape.cross_heads, self.head_dim, zeros, self.dtype, *qk_norm, name="cross_attention")
        x = x + _kept(cross(x, text, mask=text_mask[:, None, :], keep=keep.cross_heads), keep.block)
        ffn = FeedForward(self.shape.ffn, self.dtype, name="ffn")
        modulated = modulate(rms_normalize(x, norms.eps), shift2, scale2)
        x = x + _kept(gate(ffn(modulated, keep.ffn), gate2), keep.block)
        self.sow("intermediates", "residual", x)
        return x


def _kept(x: Tokens, block: Float[Array, "*b"] | None) -> Tokens:
    return x if block is None else x * block[..., None, None].astype(x.dtype)
