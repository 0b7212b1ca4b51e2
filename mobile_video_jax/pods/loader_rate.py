"""Rate of a host's loader in batches a second, beside the rate that the step takes."""

import copy
import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.loader import load
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.stages.registry import build_stage

WARM_UP = 2  # batches: opening files, and filling the buffers that are empty at the start


def host_share(values: Mapping[str, Any], batch_size: int, hosts: int) -> dict[str, Any]:
    """The config of one host's part of the global batch, read by one process on one device.

    Raises UserError where the batch does not divide.
    """
    if batch_size % hosts:
        raise UserError(f"batch_size {batch_size} does not divide over {hosts} hosts: use a multiple of {hosts}")
    share = copy.deepcopy(dict(values)) | {"batch_size": batch_size // hosts, "mesh": dataclasses.asdict(MeshConfig())}
    share["optimizer"]["accumulate"] = 1
    if values.get("token_budget"):
        share["token_budget"] //= hosts
    return share


def measure_loader(values: Mapping[str, Any], seconds: float) -> dict[str, float]:
    """Loads a config's training batches for so many seconds as fast as they come, after the first few.

    Returns batches, clips and bytes a second, and the processor seconds that this process spends on a batch.
    """
    stage = build_stage(values)
    batches = load(stage.train_batches(make_mesh(stage.config.mesh)), stage.config.loader_processes)
    try:
        for _ in range(WARM_UP):
            next(batches)
        count = clips = size = 0
        started, computed = time.monotonic(), time.process_time()
        while (elapsed := time.monotonic() - started) < seconds or not count:
            batch = next(batches)
            count, clips = count + 1, clips + len(batch["record"])
            size += sum(np.asarray(value).nbytes for value in batch.values())
        computed = time.process_time() - computed
    finally:
        batches.close()
    rates = {"batches": count / elapsed, "clips": clips / elapsed, "bytes": size / elapsed}
    return {f"{name}_per_second": rate for name, rate in rates.items()} | {
        "processor_seconds_a_batch": computed / count
    }


def plan(measured: Mapping[str, float], step_seconds: float, processes: int) -> dict[str, Any]:
    """The host's loader processes for a step of so many seconds, from the rate with `processes` (0: threads alone).

    `ratio` is batches made over batches taken. `loader_processes` is 0 where threads of the training process suffice,
    and otherwise as many as are needed if each gives what one did when measured.
    """
    ratio = measured["batches_per_second"] * step_seconds
    enough = ratio >= 1
    needed = processes if enough else math.ceil(max(processes, 1) / ratio)
    return {"step_seconds": step_seconds, "ratio": ratio, "enough": enough, "loader_processes": needed}
