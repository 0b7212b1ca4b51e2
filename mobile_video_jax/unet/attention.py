"""Attention whose heads of queries may share one head of keys and values."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.nn.attention.layer import ContextRope, attend
from mobile_video_jax.nn.dense import Dense, zeros
from mobile_video_jax.nn.embeddings import RopeTable, apply_rope
from mobile_video_jax.nn.norm import RMSNorm


class SharedAttention(nn.Module):
    """Attention from x to `context` (x itself when None), with RMS-normalised queries and keys; zero at the start.

    `rope` is the table of x's positions, and of the context's unless `context_rope` is that.

    `kv_heads` heads of keys and values, a divisor of `heads`, serve as many groups of queries: 1 is multi-query
    attention (arXiv 1911.02150). The queries of a group are more queries of one head, so that no key is repeated.
    """

    heads: int
    kv_heads: int
    head_dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        context: Float[Array, "b m e"] | None = None,
        *,
        rope: RopeTable | None = None,
        context_rope: ContextRope | None = None,
        mask: Bool[Array, "#b 1 m"] | None = None,
    ) -> Float[Array, "b n d"]:
        context = x if context is None else context
        q = RMSNorm(axis=None, dtype=self.dtype, name="q_norm")(self._heads(x, self.heads, "q"))
        k = RMSNorm(axis=None, dtype=self.dtype, name="k_norm")(self._heads(context, self.kv_heads, "k"))
        v = self._heads(context, self.kv_heads, "v")
        if rope is not None:
            q, k = apply_rope(q, rope), apply_rope(k, context_rope or rope)
        out = attend(q.reshape(x.shape[0], -1, self.kv_heads, self.head_dim), k, v, mask)
        out = out.reshape(*x.shape[:-1], -1)
        return Dense(x.shape[-1], ("heads", "embed"), zeros, dtype=self.dtype, name="out")(out)

    def _heads(self, x: Float[Array, "b n d"], heads: int, name: str) -> Float[Array, "b n h k"]:
        projected = Dense(heads * self.head_dim, ("embed", "heads"), dtype=self.dtype, name=name)(x)
        return projected.reshape(*x.shape[:-1], heads, self.head_dim)
