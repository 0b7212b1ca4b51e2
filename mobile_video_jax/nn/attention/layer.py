"""Multi-head attention with QK-norm, for self- and cross-attention."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from mobile_video_jax.nn.attention.kernels import kernels
from mobile_video_jax.nn.config import EPS
from mobile_video_jax.nn.dense import Dense, Initializer, xavier
from mobile_video_jax.nn.embeddings import RopeTable, apply_rope
from mobile_video_jax.nn.norm import AcrossHeadsRMSNorm, RMSNorm

ContextRope = tuple[Float[Array, "m half"], Float[Array, "m half"]]

# The variables of cross-attention's mean logits over heads; they are computed where a caller makes them mutable.
CROSS_LOGITS = "cross_logits"

# Added to masked logits. Not -inf or -1e9: both overflow fp16, whose largest number is 65,504.
MASKED = -1e4


class Attention(nn.Module):
    """Attention of `heads` heads from x to `context` (x itself when None), with RMS-normalised queries and keys.

    `rope` is the table of x's positions, and of the context's unless `context_rope` is that. Heads are multiplied by
    `head_mask`, one vector for all clips or one per clip. With `norm_across_heads` queries and keys are normalised over
    all unmasked heads together, otherwise each head alone. With `kv_heads` that many heads of keys and values serve the
    queries' heads in turn (grouped-query attention, arXiv 2305.13245; multi-query with one): head i has those of i
    modulo `kv_heads`, so that the first heads are a network too.
    """

    heads: int
    head_dim: int
    out_init: Initializer = xavier
    dtype: Any = jnp.float32
    norm_across_heads: bool = False
    norm_eps: float = EPS
    kv_heads: int = 0  # 0: as many as heads

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        context: Float[Array, "b m e"] | None = None,
        *,
        rope: RopeTable | None = None,
        context_rope: ContextRope | None = None,
        mask: Bool[Array, "#b #n m"] | None = None,
        head_mask: Float[Array, "*b h"] | None = None,
    ) -> Float[Array, "b n d"]:
        q, k, v = self._projected(x, x if context is None else context, head_mask)
        if rope is not None:
            q, k = apply_rope(q, rope), apply_rope(k, rope if context_rope is None else context_rope)
        if context is not None and self.is_mutable_collection(CROSS_LOGITS):
            self.sow(CROSS_LOGITS, "logits", mean_logits(q, k))
        return self._output(attend(q, k, v, mask), head_mask, x.shape[-1])

    def _projected(
        self, x: Float[Array, "b n d"], context: Float[Array, "b m e"], head_mask: Float[Array, "*b h"] | None
    ) -> tuple[Float[Array, "b n h k"], Float[Array, "b m h k"], Float[Array, "b m h k"]]:
        """Normalised queries and keys, and values."""
        few = self.kv_heads or self.heads
        q, k, v = self._heads(x, "q", self.heads), self._heads(context, "k", few), self._heads(context, "v", few)
        q, k = self._normalized(q, "q_norm", head_mask), self._normalized(k, "k_norm", head_mask)
        if few < self.heads:
            shared = jnp.arange(self.heads) % few
            k, v = k[:, :, shared], v[:, :, shared]
        return q, k, v

    def _output(
        self, heads: Float[Array, "b n h k"], head_mask: Float[Array, "*b h"] | None, width: int
    ) -> Float[Array, "b n {width}"]:
        if head_mask is not None:
            heads = heads * head_mask[..., None, :, None].astype(heads.dtype)
        out = heads.reshape(*heads.shape[:2], -1)
        return Dense(width, ("heads", "embed"), self.out_init, dtype=self.dtype, name="out")(out)

    def _heads(self, x: Float[Array, "b n d"], name: str, count: int) -> Float[Array, "b n {count} k"]:
        projected = Dense(count * self.head_dim, ("embed", "heads"), dtype=self.dtype, name=name)(x)
        return projected.reshape(*x.shape[:-1], count, self.head_dim)

    def _normalized(
        self, x: Float[Array, "b n h k"], name: str, head_mask: Float[Array, "*b h"] | None
    ) -> Float[Array, "b n h k"]:
        if self.norm_across_heads:
            return AcrossHeadsRMSNorm(axis="heads", dtype=self.dtype, eps=self.norm_eps, name=name)(x, head_mask)
        return RMSNorm(axis=None, dtype=self.dtype, eps=self.norm_eps, name=name)(x)


def mean_logits(q: Float[Array, "b n h d"], k: Float[Array, "b m h d"]) -> Float[Array, "b n m"]:
    """The logits q k^T / sqrt(d), a mean over heads."""
    summed = jnp.einsum("bnhd,bmhd->bnm", q, k).astype(jnp.float32)
    mean: jax.Array = summed * (q.shape[-1] ** -0.5 / q.shape[2])
    return mean


def attend(
    q: Float[Array, "b n h d"],
    k: Float[Array, "b m h d"],
    v: Float[Array, "b m h d"],
    mask: Bool[Array, "#b #n m"] | None = None,
) -> Float[Array, "b n h d"]:
    """softmax(q k^T / sqrt(d)) v for each head, the softmax in float32; keys where `mask` is False are ignored.

    TPUs and GPUs run a fused kernel where one fits, CPUs a loop over heads where it is faster (kernels.py of this
    folder), everything else XLA's operations.
    """
    fused = kernels(q, k, mask)
    if not fused:
        return xla_attend(q, k, v, mask)
    # The backward pass saves what every platform's branch needs; checkpointed, XLA's branch needs its inputs alone.
    out: jax.Array = lax.platform_dependent(q, k, v, mask, **fused, default=jax.checkpoint(xla_attend))
    return out


def xla_attend(
    q: Float[Array, "b n h d"],
    k: Float[Array, "b m h d"],
    v: Float[Array, "b m h d"],
    mask: Bool[Array, "#b #n m"] | None = None,
) -> Float[Array, "b n h d"]:
    """`attend` by plain operations, for every platform, shape and mask."""
    logits = jnp.einsum("bnhd,bmhd->bhnm", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
    if mask is not None:
        logits = jnp.where(mask[:, None], logits, MASKED)
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("bhnm,bmhd->bnhd", weights, v)
