"""The mesh, rematerialisation and batch of a config with auto=True, the same in a plan and in its run."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.progress import say
from mobile_video_jax.cost.tpu.topology import CHIPS, Topology, generation_of
from mobile_video_jax.parallel.mesh import slice_count
from mobile_video_jax.pods.mesh_search import choose
from mobile_video_jax.train.checkpoint import newest_step
from mobile_video_jax.train.config import TrainConfig
from mobile_video_jax.train.run import read_run


def automatic(values: Mapping[str, Any], topology: Topology, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """A config's values with what suits the topology, and with `fixed`, the values that are to stay, by key.

    Unchanged without auto=True, and where the estimate lets nothing fit.
    """
    if not values["auto"]:
        return dict(values)
    candidate = choose(values, topology, fixed)
    if candidate is None:
        say(f"by the estimate nothing fits {topology.name}: mesh, remat and batch stay as the config has them")
        return dict(values)
    axes = {f"mesh.{axis}": size for axis, size in dataclasses.asdict(candidate.mesh).items() if size > 1}
    chosen = axes | {"model.remat": candidate.remat, "batch_size": candidate.batch_size}
    flags = " ".join(f"--config.{key}={value}" for key, value in chosen.items())
    say(f"chosen for {topology.slices} x {topology.name}: {flags}")
    return candidate.apply(values)


def automatic_config(
    config: TrainConfig, devices: Sequence[jax.Device], fixed: Mapping[str, Any], run: Path
) -> TrainConfig:
    """The same for a run on these devices; one that resumes keeps its batch. Unchanged on what is no TPU."""
    topology = topology_of(devices)
    if topology is None:
        return config
    if newest_step(run) is not None:
        fixed = {"batch_size": read_run(run)["config"]["batch_size"], **fixed}
    values = automatic(dataclasses.asdict(config), topology, fixed)
    return from_mapping(type(config), values)


def topology_of(devices: Sequence[jax.Device]) -> Topology | None:
    """A topology of these devices' generation, slices and chips a slice; None where there is none such."""
    generation, slices = generation_of(devices[0].device_kind), slice_count(devices)
    shapes = CHIPS[generation].shapes if generation else ()
    chips = len(devices) // slices
    name = next((shape for shape in shapes if math.prod(map(int, shape.split("x"))) == chips), None)
    return Topology(f"{generation}:{name}", slices) if name else None
