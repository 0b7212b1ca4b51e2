"""The ops of transformers that have no phone form yet, counted in the JAX network."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mobile_video_jax.core.clip import Compression
from mobile_video_jax.cost.phone.ops import Op
from mobile_video_jax.cost.phone.trace import ops_of_call, ops_of_network, variables_of
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.models.config import DenoiserConfig
from mobile_video_jax.nn.attention.config import Grid
from mobile_video_jax.nn.stream import STREAM

Inputs = tuple[jax.ShapeDtypeStruct, ...]


def layout_ops(config: DenoiserConfig, grid: Grid, tiles: int) -> list[Op]:
    """The ops of one step of a clip."""
    return ops_of_network(_network(config), *_inputs(config, grid), ffn_tiles=tiles)


def stream_ops(config: DenoiserConfig, grid: Grid, tiles: int) -> tuple[list[Op], list[Op]]:
    """The ops of one step of a stream's first frame, and of each later chunk, whose state is read and renewed."""
    network, (_, *rows) = _network(config), grid
    first = _inputs(config, (1, rows[0], rows[1]))
    later = _inputs(config, (config.transformer.chunk_frames, rows[0], rows[1]))
    weights = variables_of(network, *first)

    def begin(weights: Any, *inputs: Any) -> Any:
        return network.apply(weights, *inputs, mutable=STREAM)

    def proceed(weights: Any, state: Any, *inputs: Any) -> Any:
        return network.apply({**weights, **state}, *inputs, mutable=STREAM)

    _, state = jax.eval_shape(begin, weights, *first)
    return (
        ops_of_call(begin, weights, *first, ffn_tiles=tiles),
        ops_of_call(proceed, weights, state, *later, ffn_tiles=tiles),
    )


def _network(config: DenoiserConfig) -> Dit:
    return Dit(dataclasses.replace(config.transformer, scan=False, remat="none", dtype="bfloat16"))


def _inputs(config: DenoiserConfig, grid: Grid) -> Inputs:
    """Latents, times, text states and text mask of one clip."""
    channels = Compression.parse(config.compression).channels
    return (
        jax.ShapeDtypeStruct((1, *grid, channels), jnp.float32),
        jax.ShapeDtypeStruct((1,), jnp.float32),
        jax.ShapeDtypeStruct((1, config.text_tokens, config.text_width), jnp.float32),
        jax.ShapeDtypeStruct((1, config.text_tokens), jnp.bool_),
    )
