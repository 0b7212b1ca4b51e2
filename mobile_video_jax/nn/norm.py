"""Root-mean-square normalisation, safe in fp16."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.nn.module import partitioned

# fp16's smallest normal number is 6.1e-5; phones may flush anything below it to zero, so eps stays above.
EPS = 1e-4


def rms_normalize(x: Float[Array, "*batch d"], eps: float = EPS) -> Float[Array, "*batch d"]:
    """Divides by the root mean square over the last axis, x / sqrt(mean(x^2) + eps), computed in float32."""
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + eps)).astype(x.dtype)


def layer_normalize(x: Float[Array, "*batch d"], eps: float = EPS) -> Float[Array, "*batch d"]:
    """Subtracts the mean over the last axis and divides by the deviation (arXiv 1607.06450), computed in float32."""
    wide = x.astype(jnp.float32)
    return rms_normalize(wide - jnp.mean(wide, axis=-1, keepdims=True), eps).astype(x.dtype)


class RMSNorm(nn.Module):
    """RMS normalisation with one learned scale a channel (arXiv 1910.07467)."""

    axis: str | None = "embed"
    dtype: Any = jnp.float32
    eps: float = EPS

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        init = partitioned(nn.initializers.ones_init(), (self.axis,))
        scale = self.param("scale", init, (x.shape[-1],))
        # In float32, as is then the sum of the scale's gradient.
        return (rms_normalize(x.astype(jnp.float32), self.eps) * scale).astype(self.dtype)


class AcrossHeadsRMSNorm(RMSNorm):
    """RMS normalisation over all heads at once, with one learned scale a head and channel.

    x_h scale_h / sqrt(sum_g keep_g mean(x_g^2) / sum_g keep_g + eps): a head that `keep` switches off has no share in
    the others' norm either, so that a masked network is the pruned one. `keep` is one vector for all clips or one each.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b n h d"], keep: Float[Array, "*b h"] | None = None) -> Float[Array, "b n h d"]:
        init = partitioned(nn.initializers.ones_init(), (self.axis,))
        scale = self.param("scale", init, (x.shape[2] * x.shape[3],)).reshape(x.shape[2:])
        wide = x.astype(jnp.float32)
        mean = _mean_of_heads(jnp.mean(wide**2, axis=-1, keepdims=True), keep)
        return (wide * jax.lax.rsqrt(mean + self.eps) * scale).astype(self.dtype)


def _mean_of_heads(squares: Float[Array, "b n h 1"], keep: Float[Array, "*b h"] | None) -> Float[Array, "b n 1 1"]:
    if keep is None:
        return jnp.mean(squares, axis=2, keepdims=True)
    weights = keep.astype(jnp.float32)[..., None, :, None]
    total = jnp.sum(weights, axis=-2, keepdims=True)
    # Without any head nothing of this is used, and must only be finite.
    return jnp.sum(weights * squares, axis=2, keepdims=True) / jnp.where(total > 0, total, 1)
