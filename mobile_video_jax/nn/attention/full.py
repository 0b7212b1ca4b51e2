"""Softmax attention between all tokens, or where it is causal between chunks and a window of frames before them."""

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from mobile_video_jax.nn.attention.config import Chunks, Grid
from mobile_video_jax.nn.attention.layer import Attention, attend
from mobile_video_jax.nn.attention.window import window_attend
from mobile_video_jax.nn.embeddings import RopeTable, apply_rope


class SelfAttention(Attention):
    """Self-attention of the tokens of a grid: the base of all kinds."""

    grid: Grid = (1, 1, 1)
    chunks: Chunks = Chunks()


class FullAttention(SelfAttention):
    """Softmax attention."""

    @nn.compact
    def __call__(  # type: ignore[override]
        self,
        x: Float[Array, "b n d"],
        *,
        rope: RopeTable,
        mask: Bool[Array, "b 1 n"] | None = None,
        head_mask: Float[Array, "*b h"] | None = None,
    ) -> Float[Array, "b n d"]:
        q, k, v = self._projected(x, x, head_mask)
        q, k = apply_rope(q, rope), apply_rope(k, rope)
        if self.chunks.causal:
            key_mask = None if mask is None else mask[:, 0]
            out = window_attend(self, q, k, v, key_mask, self.grid, self.chunks)
        else:
            out = attend(q, k, v, mask)
        return self._output(out, head_mask, x.shape[-1])
