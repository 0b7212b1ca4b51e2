"""Timing two sides in turn: both in one run on one machine, as a ratio."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.parallel.mesh import make_mesh, put_batch
from mobile_video_jax.train.optimizer import make_optimizer
from mobile_video_jax.train.stage import Batch, Stage
from mobile_video_jax.train.state import state_shardings
from mobile_video_jax.train.step import make_step

Row = dict[str, Any]
Run = Callable[[], Any]


def interleaved(ours: Run, peer: Run, repeats: int) -> tuple[float, float]:
    """Median seconds of two functions that take turns, so that whatever slows the machine slows both."""
    ours_seconds, peer_seconds = median_seconds([ours, peer], repeats)
    return ours_seconds, peer_seconds


def median_seconds(runs: Sequence[Run], repeats: int) -> list[float]:
    """Median seconds of each function, one run of each after the other, after a first run that compiles."""
    for run in runs:
        _seconds(run)
    medians: list[float] = np.median([[_seconds(run) for run in runs] for _ in range(repeats)], axis=0).tolist()
    return medians


def _seconds(run: Run) -> float:
    started = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - started


def training_step(stage: Stage, batch: Batch) -> Run:
    """A function that takes one training step on the batch and continues from there at the next call."""
    mesh, config = make_mesh(stage.config.mesh), stage.config
    optimizer = make_optimizer(config.optimizer, config.steps)
    shapes, shardings = state_shardings(stage, optimizer, mesh)
    fresh = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    state = jax.device_put(fresh.replace(params=random_arrays(shapes.params)), shardings)
    placed = put_batch(batch, mesh)
    step = make_step(stage, optimizer, mesh, shardings)

    def run() -> Any:
        nonlocal state
        state, metrics = step(state, placed)
        return state, metrics

    return run


def random_arrays(shapes: Any) -> Any:
    """Arrays of these shapes: compiling the initializers would take memory, and longer than what is measured."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.array(0.02 * rng.standard_normal(leaf.shape, np.float32)), shapes)


def row(name: str, seconds: tuple[float, float], *, peer: str, dtype: str, shape: list[int], **more: Any) -> Row:
    """A row of the benchmark; ratio above 1: ours is faster."""
    ours_seconds, peer_seconds = seconds
    return {
        "name": name,
        "ours_seconds": ours_seconds,
        "peer_seconds": peer_seconds,
        "ratio": peer_seconds / ours_seconds,
        "peer": peer,
        "dtype": dtype,
        "shape": shape,
        **more,
        "hardware": hardware(),
        "commit": git_revision(),
    }
