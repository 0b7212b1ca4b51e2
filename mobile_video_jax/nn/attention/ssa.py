"""Strided self-attention (S2DiT, arXiv 2601.12719): softmax attention between averages of neighbouring tokens."""

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from mobile_video_jax.nn.attention.full import SelfAttention
from mobile_video_jax.nn.attention.layer import attend
from mobile_video_jax.nn.attention.pooling import pooled, pooled_mask, strided_rope, upsampled
from mobile_video_jax.nn.attention.window import window_attend
from mobile_video_jax.nn.embeddings import RopeTable, apply_rope


class StridedAttention(SelfAttention):
    """Softmax attention on a grid of 1 / stride of the rows and columns, whose output is repeated for each token.

    Linear layers commute with averages: queries, keys and values are strided by striding the tokens. A stream carries
    the keys and values of a window of frames.
    """

    @nn.compact
    def __call__(  # type: ignore[override]
        self,
        x: Float[Array, "b n d"],
        *,
        rope: RopeTable,
        mask: Bool[Array, "b 1 n"] | None = None,
        head_mask: Float[Array, "*b h"] | None = None,
    ) -> Float[Array, "b n d"]:
        (frames, height, width), stride = self.grid, self.chunks.stride
        key_mask = None if mask is None else mask[:, 0]
        tokens = pooled(x, self.grid, stride, key_mask)
        rope, key_mask = strided_rope(rope, self.grid, stride), pooled_mask(key_mask, self.grid, stride)
        q, k, v = self._projected(tokens, tokens, head_mask)
        q, k = apply_rope(q, rope), apply_rope(k, rope)
        if self.chunks.causal:
            low = (frames, height // stride, width // stride)
            out = window_attend(self, q, k, v, key_mask, low, self.chunks)
        else:
            out = attend(q, k, v, None if key_mask is None else key_mask[:, None])
        return upsampled(self._output(out, head_mask, x.shape[-1]), self.grid, stride)
