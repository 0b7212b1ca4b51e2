"""Linear attention: softmax's weights replaced by products of positive features, summed once for all queries.

out_i = phi(q_i)^T S / phi(q_i)^T Z with S = sum_j phi(k_j) v_j^T and Z = sum_j phi(k_j) (arXiv 2006.16236). RoPE turns
the features of the numerator only (SANA-Video, arXiv 2509.24695): the result depends on relative positions, and the
denominator stays positive. Sums and their products are float32: they overflow half precision.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.nn.attention.chunks import ChunkFrames, by_frame
from mobile_video_jax.nn.attention.config import Grid
from mobile_video_jax.nn.embeddings import RopeTable, apply_rope
from mobile_video_jax.nn.module import partitioned

EPS = 1e-6  # least denominator


class Features(NamedTuple):
    """Positive features of queries or keys [b n h d], and the same turned by RoPE, in float32."""

    plain: Float[Array, "b n h d"]
    turned: Float[Array, "b n h d"]


class FeatureMap(nn.Module):
    """relu(x A + b), with a matrix for each head; a fresh one is relu(x)."""

    @nn.compact
    def __call__(self, x: Float[Array, "b n h d"], rope: RopeTable, mask: Bool[Array, "b n"] | None = None) -> Features:
        _, _, heads, size = x.shape
        matrices = jnp.asarray(
            self.param("matrices", partitioned(_identities, (None, None, None)), (heads, size, size))
        )
        bias = jnp.asarray(self.param("bias", partitioned(nn.initializers.zeros_init(), (None, None)), (heads, size)))
        features = nn.relu(jnp.einsum("bnhd,hde->bnhe", x.astype(jnp.float32), matrices) + bias)
        if mask is not None:
            features = features * mask[:, :, None, None]
        return Features(features, apply_rope(features, rope))


def _identities(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    return jnp.broadcast_to(jnp.eye(shape[-1], dtype=dtype), shape)


class Sums(NamedTuple):
    """S and Z, over the tokens of a frame, a chunk or a whole clip."""

    values: Float[Array, "b t h d e"]
    weights: Float[Array, "b t h d"]


def frame_sums(keys: Features, v: Float[Array, "b n h e"], grid: Grid) -> Sums:
    """The sums of each frame."""
    plain, turned, v = by_frame(keys.plain, grid), by_frame(keys.turned, grid), by_frame(v.astype(jnp.float32), grid)
    return Sums(jnp.einsum("btphd,btphe->bthde", turned, v), jnp.sum(plain, axis=2))


def numerator(turned: ChunkFrames, sums: Sums) -> Float[Array, "b c f p h e"]:
    """phi(q)^T S of the queries of each chunk."""
    return jnp.einsum("bcfphd,bchde->bcfphe", turned, sums.values)


def denominator(plain: ChunkFrames, sums: Sums) -> Float[Array, "b c f p h 1"]:
    """phi(q)^T Z of the queries of each chunk."""
    return jnp.einsum("bcfphd,bchd->bcfph", plain, sums.weights)[..., None]
