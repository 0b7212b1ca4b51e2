"""The two-matrix feed-forward network."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.nn.dense import Dense


class FeedForward(nn.Module):
    """Computes gelu(x W1 + b1) W2 + b2 with the tanh form of GELU (arXiv 1606.08415)."""

    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        hidden = nn.gelu(Dense(self.hidden, ("embed", "ffn"), dtype=self.dtype, name="up")(x), approximate=True)
        return Dense(x.shape[-1], ("ffn", "embed"), dtype=self.dtype, name="down")(hidden)
