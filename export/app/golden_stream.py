"""JAX's states of a stream as the phone has them, and its calls and clips chunk by chunk (see export/app/golden.py).

The phone carries means where JAX carries sums, and everything relative to the next call's first frame: sums are turned
back by the frames so far, keys to where they were before they were turned.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from export.app.golden import Tensors, dit_features, is_passed, precisely, row, step_tensors
from export.phone.attention.call import FIRST
from export.phone.steps import NamedSteps
from mobile_video_jax.dit.config import BlockShape, DitConfig
from mobile_video_jax.dit.model import Dit, grid_rope
from mobile_video_jax.dit.replaced import block_by_block
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.stream import START, State, next_state, sample_chunk
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.nn.attention.config import CHUNKED, LCHA, SSA
from mobile_video_jax.nn.attention.pooling import strided_rope
from mobile_video_jax.nn.stream import STREAM

Rope = tuple[np.ndarray, np.ndarray]


def chunk_sizes(config: DitConfig, frames: int) -> list[int]:
    """Latent frames of each chunk of a clip of so many."""
    return [1, *[config.chunk_frames] * ((frames - 1) // config.chunk_frames)]


def stream_tensors(config: DitConfig, params: Any, *inputs: Any) -> Iterator[Tensors]:
    """Every input and output of each chunk of a clip at one time.

    kept_BLOCK_NAME of one is past_BLOCK_NAME of the next. `inputs` are the arguments of Dit for the whole clip.
    """
    model, run = _streaming(config, params)
    (latents, *captions), start, state, past = inputs, 0, dict[str, Any](), Tensors()
    for size in chunk_sizes(config, latents.shape[1]):
        chunk = latents[:, start : start + size]
        velocity, variables = run(state, chunk, *captions)
        tensors = dit_features(model.config, (chunk, *captions), velocity, variables) | _behind(start, past)
        state, start = {STREAM: variables[STREAM]}, start + size
        past = phone_states(model.config, latents.shape[2:4], state[STREAM], start)
        yield tensors | {f"kept_{name}": x for name, x in past.items()}


def stream_step_tensors(
    config: DitConfig, params: Any, calls: Mapping[str, NamedSteps], times: Any, *inputs: Any
) -> Iterator[tuple[str, list[Tensors]]]:
    """Every input and output of each step of `calls`, by their names: chunks one behind the other.

    The state behind a chunk is that of its noise. `inputs` are latents of a clip, text states and mask.
    """
    model, run = _streaming(config, params)
    (latents, *captions), start, state, past = inputs, 0, dict[str, Any](), Tensors()
    before: list[Mapping[Any, Any]] = []
    for name, named in calls.items():
        chunk = latents[:, :1] if name == FIRST else latents[:, 1 : 1 + config.chunk_frames]
        steps = [step for _, step in named]
        rows = list(step_tensors(config, params, steps, times, chunk, *captions, stream=state, before=before))
        yield name, [tensors | _behind(start, past) for tensors, _ in rows]
        before = [] if name == FIRST else [kept for _, kept in rows]
        state = {STREAM: run(state, chunk, jnp.zeros(1), *captions)[1][STREAM]}
        start += chunk.shape[1]
        past = phone_states(model.config, latents.shape[2:4], state[STREAM], start)


def _streaming(config: DitConfig, params: Any) -> tuple[Dit, Callable[..., Any]]:
    """The network with its blocks one by one, and (state, *inputs) -> velocity, variables behind the inputs."""
    model, params = block_by_block(Dit(dataclasses.replace(config, dtype="float32")), params)

    @jax.jit
    def run(params: Any, state: Any, *inputs: Any) -> Any:
        mutable = ["intermediates", STREAM]
        return model.apply({"params": params, **state}, *inputs, mutable=mutable, capture_intermediates=is_passed)

    return model, functools.partial(precisely, run, params)


def _behind(start: int, past: Tensors) -> Tensors:
    """The inputs of a call behind so many frames, whose state is known."""
    return {"frames_before": np.full((1, 1, 1, 1), start, np.float32)} | {f"past_{name}": x for name, x in past.items()}


def phone_states(config: DitConfig, rows: tuple[int, int], state: Mapping[str, Any], frames: int) -> Tensors:
    """The state of all blocks behind so many frames, under the phone's names."""
    tensors = {}
    for i, shape in enumerate(config.block_shapes):
        values = state.get(f"block_{i}", {}).get("self_attention", {})
        for name, x in _block_state(config, shape, rows, values, frames).items():
            tensors[f"{i}_{name}"] = np.asarray(x, np.float32)
    return tensors


def _block_state(
    config: DitConfig, shape: BlockShape, rows: tuple[int, int], values: Mapping[str, Any], frames: int
) -> Tensors:
    size = shape.resolution * (config.attention_stride if shape.kind == SSA else 1)
    tokens = rows[0] * rows[1] // size**2
    tensors: Tensors = {}
    if shape.kind in (LCHA, CHUNKED):
        counted = max(frames - (config.chunk_overlap if shape.kind == CHUNKED else 0), 1)
        back = tuple(table[:1] for table in _rope(config, (1, *rows), size, -frames))
        sums = np.asarray(values["values"])[0, 0] / (counted * tokens)  # [h d e]
        tensors["values"] = _turned(sums.transpose(2, 0, 1), back).transpose(1, 2, 0)[:, :, None]
        tensors["weights"] = np.asarray(values["weights"])[0, 0][:, :, None, None] / (counted * tokens)
    if "k" in values and values["k"].shape[1]:
        window = values["k"].shape[1]
        cos, sin = _rope(config, (window, *rows), size, frames - window)
        keys, numbers = (np.asarray(values[name])[0].reshape(window * tokens, shape.heads, -1) for name in ("k", "v"))
        kept = shape.heads if shape.kind == CHUNKED else shape.kv_heads or shape.heads  # the others are copies
        tensors["k"] = row(_turned(keys[:, :kept], (cos, -sin)).reshape(1, window * tokens, -1))
        tensors["v"] = row(numbers[:, :kept].reshape(1, window * tokens, -1))
    if shape.kind == LCHA:
        clip = np.asarray(values["conv"]["past"])
        tensors["conv"] = row(clip.reshape(1, -1, clip.shape[-1]))
    return tensors


def _rope(config: DitConfig, grid: tuple[int, int, int], size: int, first: int) -> Rope:
    cos, sin = strided_rope(grid_rope(config, grid, first), grid, size)
    return np.asarray(cos), np.asarray(sin)


def _turned(x: Float[np.ndarray, "n h d"], rope: tuple[np.ndarray, ...]) -> Float[np.ndarray, "n h d"]:
    cos, sin = (table[:, None] for table in rope)
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def stream_latents(
    generator: Generator, config: SampleConfig, noise: Any, captions: tuple[Any, Any]
) -> Float[np.ndarray, "1 t h w c"]:
    """The latents of a stream without guidance, from noise."""
    own = generator.denoiser
    model = dataclasses.replace(own.config.transformer, dtype="float32", remat="none")
    denoiser = Denoiser(dataclasses.replace(own.config, model=model), own.sampling)
    config = config.with_times(**generator.times)
    sample, advance = (functools.partial(function, denoiser, config) for function in (sample_chunk, next_state))
    conditions, latents = (*captions, None), list[np.ndarray]()
    state, start = START, 0
    for size in chunk_sizes(model, noise.shape[1]):
        chunk = jnp.asarray(noise[:, start : start + size])
        sampled, outputs = precisely(sample, generator.params, state, chunk, conditions)
        latents.append(sampled)
        state = State(precisely(advance, generator.params, state, jnp.asarray(sampled), conditions), outputs)
        start += size
    return np.concatenate(latents, axis=1)
