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


class RMSNorm(nn.Module):
    """RMS normalisation with one learned scale a channel (arXiv 1910.07467)."""

    axis: str | None = "embed"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        init = partitioned(nn.initializers.ones_init(), (self.axis,))
        scale = self.param("scale", init, (x.shape[-1],))
        # In float32, as is then the sum of the scale's gradient.
        return (rms_normalize(x.astype(jnp.float32)) * scale).astype(self.dtype)
