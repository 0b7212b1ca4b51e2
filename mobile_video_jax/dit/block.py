"""One transformer block: modulated self-attention, cross-attention to the text, modulated FFN."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import TextMask, TextStates, Tokens
from mobile_video_jax.dit.config import BlockShape
from mobile_video_jax.nn.attention import Attention
from mobile_video_jax.nn.dense import zeros
from mobile_video_jax.nn.ffn import FeedForward
from mobile_video_jax.nn.module import partitioned
from mobile_video_jax.nn.norm import rms_normalize
from mobile_video_jax.nn.rope import RopeTable

Modulation = Float[Array, "b k d"]


def modulation_table(module: nn.Module, modulation: Modulation) -> list[Float[Array, "b 1 d"]]:
    """Adds the module's own learned table to the shared modulation and splits it into its k vectors [b, 1, d]."""
    init = partitioned(zeros, (None, "embed"))
    table = module.param("modulation", init, modulation.shape[1:])
    return jnp.split(modulation + table.astype(modulation.dtype), modulation.shape[1], axis=1)


class DitBlock(nn.Module):
    """The block of PixArt-alpha (arXiv 2310.00426): one adaLN shared by all blocks plus a table of its own.

    x += gate1 * self_attention(norm(x) * (1 + scale1) + shift1)
    x += cross_attention(x, text)
    x += gate2 * ffn(norm(x) * (1 + scale2) + shift2)

    The gates' tables and the cross-attention's last matrix start at zero, so a fresh block is the identity.
    """

    shape: BlockShape
    head_dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Tokens, modulation: Modulation, text: TextStates, text_mask: TextMask, rope: RopeTable
    ) -> Tokens:
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation_table(self, modulation)
        attention = Attention(self.shape.heads, self.head_dim, dtype=self.dtype, name="self_attention")
        x = x + gate1 * attention(rms_normalize(x) * (1 + scale1) + shift1, rope=rope)
        cross = Attention(self.shape.cross_heads, self.head_dim, zeros, self.dtype, name="cross_attention")
        x = x + cross(x, text, mask=text_mask[:, None, :])
        ffn = FeedForward(self.shape.ffn, self.dtype, name="ffn")
        return x + gate2 * ffn(rms_normalize(x) * (1 + scale2) + shift2)
