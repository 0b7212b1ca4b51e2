"""A hook in the samplers: guidance that changes the noisy latents themselves at the start of a step."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from mobile_video_jax.core.arrays import Latents
from mobile_video_jax.diffusion.path import Velocity

# (x_t, the step's time t, the velocity as a function, the step's entry of the sampler's `aux`) -> x_t.
Hook = Callable[[Latents, jnp.ndarray, Velocity, Any], Latents]
# jax.lax.scan, or what carries more: (body, init, inputs) -> (carry, outputs).
Scan = Callable[[Callable[[Any, Any], tuple[Any, Any]], Any, Any], tuple[Any, Any]]


def unchanged(x_t: Latents, t: jnp.ndarray, velocity: Velocity, aux: Any) -> Latents:
    """The hook of plain sampling."""
    return x_t
