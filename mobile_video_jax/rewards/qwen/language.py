"""The language model of Qwen2.5-VL: Qwen2 with rotary positions in time, rows and columns."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mobile_video_jax.nn.dense import Dense
from mobile_video_jax.nn.module import partitioned
from mobile_video_jax.nn.norm import RMSNorm
from mobile_video_jax.parallel.remat import checkpointed
from mobile_video_jax.rewards.qwen.config import LanguageSizes
from mobile_video_jax.rewards.qwen.layers import Angles, GatedFeedForward, rotate

MASKED = -1e9
Positions = Int[np.ndarray, "3 n"]  # in time, rows and columns


def rope_angles(positions: Positions, sizes: LanguageSizes) -> Float[np.ndarray, "n half"]:
    """Angles of a head's pairs; consecutive sections of them turn with time, rows and columns in turn."""
    head = sizes.width // sizes.heads
    frequencies = sizes.theta ** (-np.arange(0, head, 2, dtype=np.float32) / head)
    axis = np.repeat(np.arange(len(sizes.sections)) % 3, sizes.sections)
    angles: np.ndarray = (positions[axis].T.astype(np.float32) * frequencies).astype(np.float32)
    return angles


class _Layer(nn.Module):
    sizes: LanguageSizes
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], angles: Angles) -> Float[Array, "b n d"]:
        sizes, (b, n, d) = self.sizes, x.shape
        head = d // sizes.heads
        normed = self._norm("input_layernorm")(x)
        q, k, v = (
            Dense(heads * head, ("embed", "heads"), dtype=self.dtype, name=f"self_attn_{name}_proj")(normed).reshape(
                b, n, heads, head
            )
            for name, heads in (("q", sizes.heads), ("k", sizes.kv_heads), ("v", sizes.kv_heads))
        )
        q, k = rotate(q, angles), rotate(k, angles)
        q = q.reshape(b, n, sizes.kv_heads, -1, head)
        logits = jnp.einsum("bngrd,bmgd->bgrnm", q, k).astype(jnp.float32) * head**-0.5
        logits = jnp.where(np.tri(n, dtype=bool), logits, MASKED)
        out = jnp.einsum("bgrnm,bmgd->bngrd", nn.softmax(logits).astype(v.dtype), v).reshape(b, n, d)
        x = x + Dense(d, ("heads", "embed"), use_bias=False, dtype=self.dtype, name="self_attn_o_proj")(out)
        normed = self._norm("post_attention_layernorm")(x)
        return x + GatedFeedForward(sizes.ffn, False, self.dtype, name="mlp")(normed)

    def _norm(self, name: str) -> RMSNorm:
        return RMSNorm(dtype=self.dtype, eps=self.sizes.eps, name=name)


class LanguageModel(nn.Module):
    """Maps embedded tokens [b n d] and their positions to logits over the vocabulary at one token of each row."""

    sizes: LanguageSizes
    dtype: Any

    def setup(self) -> None:
        sizes = self.sizes
        axes = (None, "embed")
        self.embed_tokens = self.param(
            "embed_tokens_weight", partitioned(nn.initializers.normal(0.02), axes), (sizes.vocabulary, sizes.width)
        )
        layer = checkpointed(_Layer, "full")
        self.layers = [layer(sizes, self.dtype) for _ in range(sizes.depth)]
        self.norm = RMSNorm(dtype=self.dtype, eps=sizes.eps)
        if not sizes.tied:
            self.lm_head = Dense(sizes.vocabulary, ("embed", None), use_bias=False, dtype=self.dtype)

    def embed(self, ids: Int[Array, "*b n"]) -> Float[Array, "*b n d"]:
        """The tokens' embeddings."""
        return jnp.asarray(self.embed_tokens, self.dtype)[ids]

    def __call__(
        self, x: Float[Array, "b n d"], positions: Positions, last: Int[Array, "b"]
    ) -> Float[Array, "b vocabulary"]:
        angles = jnp.asarray(rope_angles(positions, self.sizes))
        for layer in self.layers:
            x = layer(x, angles)
        at_last = jnp.take_along_axis(self.norm(x), last[:, None, None], axis=1)[:, 0]
        tied = self.sizes.tied
        logits: jax.Array = at_last @ jnp.asarray(self.embed_tokens, self.dtype).T if tied else self.lm_head(at_last)
        return logits.astype(jnp.float32)
