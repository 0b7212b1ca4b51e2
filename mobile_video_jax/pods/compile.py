"""Compilation of the train step of any stage ahead of time, for TPUs that are not there."""

import dataclasses
import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import phase
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.cost.tpu.collectives import collectives, summary
from mobile_video_jax.cost.tpu.compiler_flags import as_arguments, check_known, compiler_options
from mobile_video_jax.cost.tpu.hlo import Program
from mobile_video_jax.cost.tpu.roofline import ASSUMPTIONS, mfu, roofline
from mobile_video_jax.cost.tpu.topology import Topology
from mobile_video_jax.parallel.mesh import check_batch, make_mesh
from mobile_video_jax.stages.registry import build_stage
from mobile_video_jax.train.compiled_step import lower_step
from mobile_video_jax.train.stage import Stage

# How XLA says that a program does not fit: "Ran out of memory on HBM, the total memory required for HLO temporaries
# (482.49G) exceeds available HBM (15.75G)", or "Used 482.49G of 15.75G hbm". Arguments are counted as well.
OUT_OF_MEMORY = re.compile(r"RESOURCE_EXHAUSTED.*(?:HLO temporaries \(|Used )([\d.]+)([KMGT])", re.DOTALL)
MOST_FLOPS = 2**63  # of a step; of sizes far beyond XLA's 64-bit products fail, which ends the process
ADVICE = "use more fsdp, a smaller batch_size or model.remat=full, or --search"
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A compiled stage and its mesh, the numbers of the report and, where the step fits, the executable."""

    stage: Stage
    mesh: Mesh
    report: dict[str, Any]
    executable: jax.stages.Compiled | None


def compile_step(values: Mapping[str, Any], topology: Topology) -> CompiledStep:
    """Compiles the train step that launch.train runs for a config, and reports what it takes (see step_report).

    Phases and their times go to stderr. Of a step that does not fit `peak_bytes` is what XLA says it would take,
    to 1 %, or what its state takes if that is too much already, which is found without compiling; what is read from the
    compiled program is None. Raises UserError for a mesh that does not divide the
    topology's devices, a batch that does not divide the mesh and a compiler's flag that there is not.
    """
    devices = topology.devices()
    stage = build_stage(values)
    mesh = make_mesh(stage.config.mesh, devices)
    check_batch(stage.config.batch_size, mesh)
    started = time.monotonic()
    with phase("tracing the train step"):
        lowered, state = lower_step(stage, mesh)
        flops = stage.cost(len(devices)).flops
    if flops > MOST_FLOPS:
        raise UserError(f"a step of {flops:.0e} FLOPs is more than any pod computes: use a smaller batch_size or clip")
    report: dict[str, Any] = {
        "topology": topology.name,
        "slices": topology.slices,
        "devices": len(devices),
        "mesh": dict(mesh.shape),
        "batch_size": stage.config.batch_size,
        "limit_bytes": topology.chip.hbm_bytes,
        "parameters": count_parameters(state.params),
        "flops_per_step": flops,
        "xla_flags": as_arguments(compiler_options(stage.config.xla_flags, topology.generation)),
    }
    needed = bytes_on_a_chip(state)
    if needed > topology.chip.hbm_bytes:
        executable, compiled = None, refusal(needed, f"the state of training alone takes {needed:,} bytes a chip")
    else:
        executable, compiled = compile_for(topology, lowered, flops, loss_shares(stage))
    return CompiledStep(stage, mesh, report | compiled | {"compile_seconds": time.monotonic() - started}, executable)


def compile_for(
    topology: Topology, lowered: jax.stages.Lowered, flops: int, shares: Sequence[float] = ()
) -> tuple[jax.stages.Compiled | None, dict[str, Any]]:
    """The executable, None where it does not fit, and its part of the report (step_report, does_not_fit)."""
    try:
        with phase(f"compiling it for {topology.name}, which takes XLA minutes for a large model"):
            executable = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        check_known(error)
        return None, does_not_fit(error)
    with phase("reading the compiled program"):
        return executable, step_report(executable, topology, flops, shares)


def loss_shares(stage: Stage) -> tuple[float, ...]:
    """The share of a training's steps that take each of the stage's losses."""
    index = jax.vmap(stage.loss_index)(jnp.arange(stage.config.steps))
    counts = np.bincount(np.asarray(index), minlength=len(stage.losses))
    return tuple(float(count) for count in counts / stage.config.steps)


def bytes_on_a_chip(state: Any) -> int:
    """Bytes of each chip's share of a training's state, of shapes with their shardings."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(state))


def does_not_fit(error: jax.errors.JaxRuntimeError) -> dict[str, Any]:
    """The report of a step that XLA refuses to compile for want of memory; raises any other error again."""
    sizes = OUT_OF_MEMORY.search(str(error))
    if not sizes:
        raise error
    peak = int(float(sizes[1]) * UNITS[sizes[2]])
    return refusal(peak, str(error).splitlines()[0])


def refusal(peak: int, message: str) -> dict[str, Any]:
    """The report of a step that would take `peak` bytes a chip."""
    missing = dict.fromkeys(("collectives", "step_seconds", "mfu"))
    return {"fits": False, "peak_bytes": peak, "message": message, **missing}


def step_report(executable: Any, topology: Topology, flops: int, shares: Sequence[float]) -> dict[str, Any]:
    """Bytes on each device, bytes that it sends by kind of collective, and the roofline of a step.

    `peak_bytes` are arguments, temporaries, results that reuse no argument, and the program itself. `step_seconds` and
    `mfu` are max(compute, HBM) + the collectives that nothing hides; `overlapped` hides everything behind the slowest,
    and `serial` lets nothing overlap but an operation's own traffic and computing. All under `assumptions`, and in the
    mean over steps where each takes one of several losses.
    """
    memory, devices = executable.memory_analysis(), topology.chips * topology.slices
    program = Program(executable.as_text(), shares)
    sent = collectives(program, topology.slices)
    line = roofline(program, topology, sent)
    seconds = {"step": line.step, "overlapped": line.overlapped, "serial": line.serial}
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes + results + memory.generated_code_size_in_bytes
    return {
        "fits": peak <= topology.chip.hbm_bytes,
        "peak_bytes": peak,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "collectives": summary(sent),
        "step_seconds": line.step,
        "mfu": mfu(flops, devices, topology, line.step),
        "roofline": dataclasses.asdict(line)
        | {f"{name}_seconds": value for name, value in seconds.items()}
        | {f"{name}_mfu": mfu(flops, devices, topology, value) for name, value in seconds.items()},
        "assumptions": list(ASSUMPTIONS),
    }


def check_fits(report: Mapping[str, Any], advice: str = ADVICE) -> None:
    """Raises UserError where the step needs more memory than a chip has, by how much, with what to do."""
    if report["fits"]:
        return
    peak, limit = report["peak_bytes"], report["limit_bytes"]
    raise UserError(f"the step needs {peak:,} bytes a chip, {peak - limit:,} more than its {limit:,}: {advice}")
