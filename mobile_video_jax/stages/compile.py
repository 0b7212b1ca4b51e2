"""Compiling the train step of any stage ahead of time, for TPUs that are not there."""

import dataclasses
import pickle
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.sharding import Mesh

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing
from mobile_video_jax.core.flops import count_parameters
from mobile_video_jax.core.revision import digest
from mobile_video_jax.parallel.collectives import collectives, summary
from mobile_video_jax.parallel.hlo import Program
from mobile_video_jax.parallel.mesh import batch_sharding, check_batch, make_mesh
from mobile_video_jax.parallel.roofline import ASSUMPTIONS, mfu, roofline
from mobile_video_jax.parallel.topology import Topology
from mobile_video_jax.stages.registry import build_stage
from mobile_video_jax.train.checkpoint import abstract
from mobile_video_jax.train.optimizer import make_optimizer
from mobile_video_jax.train.stage import Stage
from mobile_video_jax.train.state import state_shardings
from mobile_video_jax.train.step import make_step

# How XLA says that a program does not fit, with the bytes it would take: "… (482.49G) exceeds available HBM (15.75G)".
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """What compiling found: the numbers of the report and, where the step fits, the executable."""

    report: dict[str, Any]
    executable: Any


def compile_step(values: Mapping[str, Any], topology: Topology) -> CompiledStep:
    """Compiles the train step that launch.train runs for a config, and reports what it takes (see step_report).

    Raises UserError for a mesh that does not divide the topology's devices and a batch that does not divide the mesh.
    """
    devices = topology.devices()
    stage = build_stage(values)
    mesh = make_mesh(stage.config.mesh, devices)
    check_batch(stage.config.batch_size, mesh)
    started = time.monotonic()
    lowered, sizes = _lower(stage, mesh)
    flops = stage.cost(len(devices)).flops
    report: dict[str, Any] = {
        "topology": topology.name,
        "slices": topology.slices,
        "devices": len(devices),
        "mesh": dict(mesh.shape),
        "batch_size": stage.config.batch_size,
        "limit_bytes": topology.chip.hbm_bytes,
        **sizes,
        "flops_per_step": flops,
    }
    try:
        executable = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        failed = {"fits": False, "message": str(error).splitlines()[0], "compile_seconds": time.monotonic() - started}
        return CompiledStep(report | failed, None)
    report |= step_report(executable, topology, flops, len(devices))
    return CompiledStep(report | {"compile_seconds": time.monotonic() - started}, executable)


def _lower(stage: Stage, mesh: Mesh) -> tuple[jax.stages.Lowered, dict[str, int]]:
    optimizer = make_optimizer(stage.config.optimizer, stage.config.steps)
    shapes, shardings = state_shardings(stage, optimizer, mesh)
    step: Any = make_step(stage, optimizer, mesh, shardings)
    state = jax.tree.map(abstract, shapes, shardings)
    batch = jax.tree.map(lambda x: abstract(x, batch_sharding(mesh)), stage.abstract_batch(mesh.size))
    return step.lower(state, batch), {"parameters": count_parameters(shapes.params)}


def step_report(executable: Any, topology: Topology, flops: int, devices: int) -> dict[str, Any]:
    """Bytes on each device, bytes that it sends by kind of collective, and the roofline of a step.

    `peak_bytes` are arguments, temporaries, results that reuse no argument, and the program itself. `step_seconds` and
    `mfu` are max(compute, HBM) + collectives; `overlapped` hides everything behind the slowest, and `serial` lets
    nothing overlap but an operation's own traffic and computing. All under `assumptions`.
    """
    memory = executable.memory_analysis()
    program = Program(executable.as_text())
    found = collectives(program, topology.slices)
    line = roofline(program, topology, found)
    seconds = {"step": line.step, "overlapped": line.overlapped, "serial": line.serial}
    kept = memory.output_size_in_bytes - memory.alias_size_in_bytes
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes + kept + memory.generated_code_size_in_bytes
    return {
        "fits": peak <= topology.chip.hbm_bytes,
        "peak_bytes": peak,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "collectives": summary(found),
        "step_seconds": line.step,
        "mfu": mfu(flops, devices, topology, line.step),
        "roofline": dataclasses.asdict(line)
        | {f"{name}_seconds": value for name, value in seconds.items()}
        | {f"{name}_mfu": mfu(flops, devices, topology, value) for name, value in seconds.items()},
        "assumptions": list(ASSUMPTIONS),
    }


def check_fits(report: Mapping[str, Any]) -> None:
    """Raises UserError where the step needs more memory than a chip has, by how much."""
    if report["fits"]:
        return
    limit = report["limit_bytes"]
    if "peak_bytes" in report:
        needs = f"{report['peak_bytes']:,} bytes a chip, {report['peak_bytes'] - limit:,} more than its {limit:,}"
    else:
        needs = f"more than a chip's {limit:,} bytes ({report['message']})"
    raise UserError(f"the step needs {needs}: use more fsdp, a smaller batch_size or model.remat=full, or --search")


def store(compiled: CompiledStep, values: Mapping[str, Any], path: Path) -> None:
    """Writes the executable with what it was compiled from: the config's digest, the jax version and the topology.

    jax.experimental.serialize_executable.deserialize_and_load takes it on the hardware.
    """
    serialized = serialize_executable.serialize(compiled.executable)
    origin = {"config": digest(values), "jax": jax.__version__, "report": compiled.report}
    with replacing(path) as temporary:
        temporary.write_bytes(pickle.dumps({**origin, "executable": serialized}))
