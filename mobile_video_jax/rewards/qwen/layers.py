"""Layers that both halves of Qwen2.5-VL share: rotation of halves, and the gated feed-forward network."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.nn.dense import Dense

Angles = Float[Array, "n half"]


def rotate(x: Float[Array, "b n h d"], angles: Angles) -> Float[Array, "b n h d"]:
    """Turns channel i of the first half with channel i of the second, in float32."""
    cos, sin = (jnp.concatenate([wave(angles)] * 2, axis=-1)[None, :, None] for wave in (jnp.cos, jnp.sin))
    wide = x.astype(jnp.float32)
    first, second = jnp.split(wide, 2, axis=-1)
    turned = wide * cos + jnp.concatenate([-second, first], axis=-1) * sin
    return turned.astype(x.dtype)


class GatedFeedForward(nn.Module):
    """down(silu(gate x) * up x)."""

    hidden: int
    bias: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        def layer(features: int, axes: tuple[str, str], name: str) -> Dense:
            return Dense(features, axes, use_bias=self.bias, dtype=self.dtype, name=name)

        gate = nn.silu(layer(self.hidden, ("embed", "ffn"), "gate_proj")(x))
        up = layer(self.hidden, ("embed", "ffn"), "up_proj")(x)
        down: Float[Array, "b n d"] = layer(x.shape[-1], ("ffn", "embed"), "down_proj")(gate * up)
        return down
