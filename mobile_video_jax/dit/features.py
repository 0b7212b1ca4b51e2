"""The transformer's velocity together with its hidden features."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Latents
from mobile_video_jax.dit.model import Dit

Features = Float[Array, "l b n d"]


def velocity_and_features(dit: Dit, params: Any, *inputs: Any) -> tuple[Latents, Features]:
    """The velocity, and the residual stream after each of the l blocks; `inputs` are those of Dit."""
    velocity, state = dit.apply({"params": params}, *inputs, mutable="intermediates")
    seen = state["intermediates"]
    if dit.config.scan:
        return velocity, seen["blocks"]["block"]["residual"][0]
    return velocity, jnp.stack([seen[f"block_{i}"]["residual"][0] for i in range(len(dit.config.block_shapes))])
