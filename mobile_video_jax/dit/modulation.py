"""Adaptive layer norm: shifts, scales and gates that depend on the diffusion time."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Tokens
from mobile_video_jax.nn.dense import zeros
from mobile_video_jax.nn.module import partitioned

# k vectors for each of f equal runs of tokens that share a time: the whole clip (f = 1), or its latent frames.
Modulation = Float[Array, "b f k d"]
Vector = Float[Array, "b f 1 d"]


def modulation_table(module: nn.Module, modulation: Modulation) -> list[Vector]:
    """Adds the module's own learned table to the shared modulation and splits it into its k vectors."""
    init = partitioned(zeros, (None, "embed"))
    table = module.param("modulation", init, modulation.shape[2:])
    return jnp.split(modulation + table.astype(modulation.dtype), modulation.shape[2], axis=2)


def modulate(x: Tokens, shift: Vector, scale: Vector) -> Tokens:
    """x (1 + scale) + shift, each run of tokens with its own vectors.

    It and gate compute in float32, so that the vectors' gradients, sums over tokens, are accumulated in float32.
    """
    shift, scale = shift.astype(jnp.float32), scale.astype(jnp.float32)
    return (_runs(x, scale) * (1 + scale) + shift).astype(x.dtype).reshape(x.shape)


def gate(x: Tokens, factor: Vector) -> Tokens:
    """x factor, each run of tokens with its own vector."""
    return (_runs(x, factor) * factor.astype(jnp.float32)).astype(x.dtype).reshape(x.shape)


def _runs(x: Tokens, vector: Vector) -> Float[Array, "b f m d"]:
    return x.reshape(x.shape[0], vector.shape[1], -1, x.shape[2]).astype(jnp.float32)
