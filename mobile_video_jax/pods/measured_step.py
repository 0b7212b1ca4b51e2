"""Steps on random batches, timed on the TPUs that are there, beside the estimate of the same compiled program."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.parallel.mesh import make_mesh, put_batch
from mobile_video_jax.pods.automatic import topology_of
from mobile_video_jax.pods.compile import loss_shares, step_report
from mobile_video_jax.stages.registry import stage_of
from mobile_video_jax.train.compiled_step import lower_step
from mobile_video_jax.train.config import TrainConfig
from mobile_video_jax.train.optimizer import make_optimizer
from mobile_video_jax.train.state import create_state, state_shardings
from mobile_video_jax.train.synthetic import synthetic_batches

WARM_UP = 3  # steps
Row = dict[str, Any]


def measure_step(config: TrainConfig, devices: Sequence[jax.Device], steps: int) -> Row:
    """The seconds of a step, of so many on random batches, beside the estimate: `ratio` is estimate / measured.

    Raises UserError on what is no TPU slice of a known shape.
    """
    topology = topology_of(devices)
    if topology is None:
        raise UserError(f"{len(devices)} x {devices[0].device_kind} is no TPU slice of a known shape: run it on one")
    stage, mesh = stage_of(config), make_mesh(config.mesh, devices)
    executable = lower_step(stage, mesh)[0].compile()
    flops = stage.cost(len(devices)).flops
    report = step_report(executable, topology, flops, loss_shares(stage))
    seconds = step_seconds(executable, config, steps)
    return beside_estimate(config.stage, report, seconds)


def step_seconds(executable: Any, config: TrainConfig, steps: int) -> float:
    """The seconds of a step, of so many after a few, each waited for.

    That is the median; where steps take one of several losses, the mean of theirs by the share of a training's steps.
    """
    stage, mesh = stage_of(config), make_mesh(config.mesh)
    optimizer = make_optimizer(config.optimizer, config.steps)
    _, shardings = state_shardings(stage, optimizer, mesh)
    state = create_state(stage, optimizer, jax.random.key(config.seed), shardings, {})
    batch = next(iter(synthetic_batches(stage.abstract_batch(), mesh)))
    batch.pop("record")
    placed, times = put_batch(batch, mesh), []
    for _ in range(WARM_UP + steps):
        started = time.perf_counter()
        state, metrics = executable(state, placed)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - started)
    taken = np.asarray(jax.vmap(stage.loss_index)(jnp.arange(WARM_UP, WARM_UP + steps)))
    return mean_of_losses(np.array(times[WARM_UP:]), taken, loss_shares(stage))


def mean_of_losses(times: np.ndarray, taken: np.ndarray, shares: Sequence[float]) -> float:
    """The mean, by `shares`, of each loss's median time, of those losses that some step has `taken`."""
    seen = np.unique(taken)
    medians = [np.median(times[taken == loss]) for loss in seen]
    return float(np.average(medians, weights=np.array(shares)[seen]))


def beside_estimate(name: str, report: Mapping[str, Any], seconds: float) -> Row:
    """A row of the benchmark: measured seconds and MFU beside those of the estimates."""
    line = report["roofline"]
    mfu = report["mfu"] * report["step_seconds"] / seconds
    return {
        "name": f"{name}_step",
        "ours_seconds": seconds,
        "peer_seconds": report["step_seconds"],
        "ratio": report["step_seconds"] / seconds,
        "peer": "the estimate of the same program, step",
        "mfu": round(mfu, 4),
        "step_mfu": round(report["mfu"], 4),
        "serial_seconds": line["serial_seconds"],
        "serial_mfu": round(line["serial_mfu"], 4),
        "peak_bytes": report["peak_bytes"],
        "hardware": hardware(),
        "commit": git_revision(),
    }
