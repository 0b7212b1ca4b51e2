"""Root-mean-square and layer normalisation, safe in fp16."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.nn.config import EPS
from mobile_video_jax.nn.module import partitioned


def rms_normalize(x: Float[Array, "*batch d"], eps: float = EPS) -> Float[Array, "*batch d"]:
    """Divides by the root mean square over the last axis, x / sqrt(mean(x^2) + eps), computed in float32."""
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + eps)).astype(x.dtype)


def layer_normalize(x: Float[Array, "*batch d"], eps: float = EPS) -> Float[Array, "*batch d"]:
    """Subtracts the mean over the last axis and divides by the deviation (arXiv 1607.06450), computed in float32."""
    wide = x.astype(jnp.float32)
    return rms_normalize(wide - jnp.mean(wide, axis=-1, keepdims=True), eps).astype(x.dtype)


class RMSNorm(nn.Module):
    """RMS normalisation with one learned scale per channel (arXiv 1910.07467)."""

    axis: str | None = "embed"
    dtype: Any = jnp.float32
    eps: float = EPS

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        scale = self._scale(x.shape[-1])
        # In float32, and so is the sum of the scale's gradient.
        return (rms_normalize(x.astype(jnp.float32), self.eps) * scale).astype(self.dtype)

    def _scale(self, size: int) -> Float[Array, "{size}"]:
        scale: jax.Array = self.param("scale", partitioned(nn.initializers.ones_init(), (self.axis,)), (size,))
        return scale


class LayerNorm(nn.Module):
    """LayerNorm with one learned scale and bias per channel (arXiv 1607.06450)."""

    dtype: Any = jnp.float32
    eps: float = EPS

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        shape = (x.shape[-1],)
        scale: jax.Array = self.param("scale", partitioned(nn.initializers.ones_init(), ("embed",)), shape)
        bias: jax.Array = self.param("bias", partitioned(nn.initializers.zeros_init(), ("embed",)), shape)
        return (layer_normalize(x.astype(jnp.float32), self.eps) * scale + bias).astype(self.dtype)


class AcrossHeadsRMSNorm(RMSNorm):
    """RMS normalisation over all heads at once, with one learned scale per head and channel.

    x_h scale_h / sqrt(sum_g mask_g mean(x_g^2) / sum_g mask_g + eps): masked heads do not contribute to the norm of the
    others, so that a masked network equals the pruned one. `head_mask` is one vector for all clips or one per clip.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n h d"], head_mask: Float[Array, "*b h"] | None = None
    ) -> Float[Array, "b n h d"]:
        scale = self._scale(x.shape[2] * x.shape[3]).reshape(x.shape[2:])
        wide = x.astype(jnp.float32)
        mean = _mean_over_heads(jnp.mean(wide**2, axis=-1, keepdims=True), head_mask)
        return (wide * jax.lax.rsqrt(mean + self.eps) * scale).astype(self.dtype)


def _mean_over_heads(
    squares: Float[Array, "b n h 1"], head_mask: Float[Array, "*b h"] | None
) -> Float[Array, "b n 1 1"]:
    if head_mask is None:
        return jnp.mean(squares, axis=2, keepdims=True)
    weights = head_mask.astype(jnp.float32)[..., None, :, None]
    total = jnp.sum(weights, axis=-2, keepdims=True)
    # Without any head the result is not used, and must only be finite.
    return jnp.sum(weights * squares, axis=2, keepdims=True) / jnp.where(total > 0, total, 1)
