"""One transformer block and its adaptive layer norm (adaLN): shifts, scales and gates that depend on the time."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.core.arrays import TextMask, TextStates, Tokens
from mobile_video_jax.dit.config import BlockShape, Norms
from mobile_video_jax.dit.masks import ALL, Masks
from mobile_video_jax.nn.attention.config import Chunks, Grid
from mobile_video_jax.nn.attention.kinds import KINDS
from mobile_video_jax.nn.attention.layer import Attention
from mobile_video_jax.nn.attention.pooling import upsampled
from mobile_video_jax.nn.dense import Dense, FeedForward, xavier, zeros
from mobile_video_jax.nn.embeddings import RopeTable, select_heads
from mobile_video_jax.nn.module import partitioned
from mobile_video_jax.nn.norm import LayerNorm, layer_normalize, rms_normalize

# k vectors for each of f equal groups of consecutive tokens that share a time: the whole clip (f = 1) or latent frames.
Modulation = Float[Array, "b f k d"]
Vector = Float[Array, "b f 1 d"]


class Conditions(NamedTuple):
    """Inputs that all blocks share beside the residual stream."""

    modulation: Float[Array, "b f 6 d"]  # shift, scale and gate of self-attention, then of the FFN
    text: TextStates
    text_mask: TextMask  # False = padding of the caption
    rope: RopeTable
    token_mask: Bool[Array, "b n"] | None = None  # False = padding of the clip
    detail: Float[Array, "b m d"] | None = None  # of a stage of lower resolution: what its averages leave out


class DitBlock(nn.Module):
    """The block of PixArt-alpha (arXiv 2310.00426): one adaLN shared by all blocks plus a table per block.

    Self-attention is of the kind that `shape` names, over the tokens of `grid`.

    x += gate1 * self_attention(norm(x) * (1 + scale1) + shift1)
    x += cross_attention(x, text)
    x += gate2 * ffn(norm(x) * (1 + scale2) + shift2)

    The shared modulation, the tables and the cross-attention's output matrix start at zero, so a fresh block is the
    identity. `masks` switches off the block, heads and FFN channels. `rope_heads` selects the heads' columns of a
    per-head RoPE table (empty: the first ones). Where a skip ends here, x first gains W `skipped`, the output of an
    earlier block, with a matrix that starts at zero.
    """

    shape: BlockShape
    head_dim: int
    dtype: Any = jnp.float32
    norms: Norms = Norms()
    rope_heads: tuple[int, ...] = ()
    grid: Grid = (1, 1, 1)
    chunks: Chunks = Chunks()

    @nn.compact
    def __call__(self, x: Tokens, conditions: Conditions, masks: Masks = ALL, skipped: Tokens | None = None) -> Tokens:
        modulation, text, text_mask, rope, token_mask, detail = conditions
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation_table(self, modulation)
        norms, rope = self.norms, select_heads(rope, self.rope_heads or range(self.shape.heads))
        normalize = layer_normalize if norms.layer else rms_normalize
        key_mask = None if token_mask is None else token_mask[:, None, :]
        if skipped is not None:
            joined = Dense(x.shape[-1], (None, "embed"), zeros, use_bias=False, dtype=self.dtype, name="skip")(skipped)
            x = x + _masked(joined, masks.block)

        kind = functools.partial(KINDS[self.shape.kind], grid=self.grid, chunks=self.chunks)
        attention = self._attention(kind, self.shape.heads, xavier, "self_attention")
        attended = attention(
            modulate(normalize(x, norms.eps), shift1, scale1), rope=rope, mask=key_mask, head_mask=masks.heads
        )
        x = x + _masked(gate(attended, gate1), masks.block)

        attention = self._attention(Attention, self.shape.cross_heads, zeros, "cross_attention")
        queried = LayerNorm(self.dtype, norms.eps, name="cross_attention_norm")(x) if norms.cross else x
        attended = attention(queried, text, mask=text_mask[:, None, :], head_mask=masks.cross_heads)
        x = x + _masked(attended, masks.block)

        ffn = FeedForward(self.shape.ffn, self.dtype, name="ffn")
        hidden = ffn(modulate(normalize(x, norms.eps), shift2, scale2), masks.ffn)
        x = x + _masked(gate(hidden, gate2), masks.block)

        self.sow("intermediates", "residual", at_full_resolution(x, detail, self.grid))
        return x

    def _attention(
        self, kind: Callable[..., Attention], heads: int, out_init: nn.initializers.Initializer, name: str
    ) -> Attention:
        return kind(
            heads,
            self.head_dim,
            out_init,
            self.dtype,
            norm_across_heads=self.norms.qk_across_heads,
            norm_eps=self.norms.qk_eps,
            kv_heads=self.shape.kv_heads,
            name=name,
        )


def at_full_resolution(x: Tokens, detail: Float[Array, "b m d"] | None, grid: Grid) -> Float[Array, "b m d"]:
    """The residual stream of all tokens: x itself, or x of a lower resolution repeated, plus what its averages lack."""
    if detail is None:
        return x
    size = math.isqrt(detail.shape[1] // x.shape[1])
    return detail + upsampled(x, (grid[0], grid[1] * size, grid[2] * size), size)


def modulation_table(module: nn.Module, modulation: Modulation) -> list[Vector]:
    """Adds the module's learned table [k, d] to the shared modulation and splits the sum into its k vectors."""
    table = module.param("modulation", partitioned(zeros, (None, "embed")), modulation.shape[2:])
    return jnp.split(modulation + table.astype(modulation.dtype), modulation.shape[2], axis=2)


def modulate(x: Tokens, shift: Vector, scale: Vector) -> Tokens:
    """x (1 + scale) + shift, with the vectors of each token's group.

    This and `gate` compute in float32, so that the vectors' gradients, sums over tokens, are accumulated in float32.
    """
    shift, scale = shift.astype(jnp.float32), scale.astype(jnp.float32)
    return (_grouped(x, scale) * (1 + scale) + shift).astype(x.dtype).reshape(x.shape)


def gate(x: Tokens, factor: Vector) -> Tokens:
    """x factor, with the vector of each token's group."""
    return (_grouped(x, factor) * factor.astype(jnp.float32)).astype(x.dtype).reshape(x.shape)


def _grouped(x: Tokens, vector: Vector) -> Float[Array, "b f m d"]:
    return x.reshape(x.shape[0], vector.shape[1], -1, x.shape[2]).astype(jnp.float32)


def _masked(x: Tokens, block: Float[Array, "*b"] | None) -> Tokens:
    return x if block is None else x * block[..., None, None].astype(x.dtype)
