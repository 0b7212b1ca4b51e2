"""Core ML's own run of a package, on a Mac: its outputs, the compute unit of each op and the time of a call."""

import statistics
import timeit
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from coremltools.models import MLModel
from coremltools.models.compute_plan import MLComputePlan

from export.agreement import agreements, as_json, passes
from export.mil.ops.state import is_state
from export.mil.verify import Verification

CALLS = 10


class Placement(TypedDict):
    """The count of ops that a compute unit runs, and their share of the cost."""

    ops: int
    cost: float


@dataclass(frozen=True)
class CoreMlRun:
    """Outputs by name, the median seconds of a call, and what each compute unit runs."""

    outputs: dict[str, np.ndarray]
    seconds: float
    placement: dict[str, Placement]


def add_core_ml(verification: Verification, summary: dict[str, Any]) -> dict[str, Any]:
    """The summary with Core ML's own run, which is held to the PSNR alone: its accumulators may be fp16 too."""
    run = run_core_ml(verification)
    outputs = agreements(verification.golden.outputs, run.outputs)
    core_ml = {"seconds": run.seconds, "placement": run.placement, "outputs": as_json(outputs)}
    return summary | {"passed": summary["passed"] and passes(outputs, compressed=True), "core_ml": core_ml}


def run_core_ml(verification: Verification) -> CoreMlRun:
    """Runs a verified package on its golden inputs, all compute units allowed; states start at zero."""
    package, function = verification.package, verification.function
    name = None if function == package.default_function else function
    model = MLModel(str(package.path), function_name=name)
    stateful = any(is_state(var) for var in package.function(name).inputs.values())

    def call() -> dict[str, np.ndarray]:
        outputs: dict[str, np.ndarray] = model.predict(
            verification.golden.inputs, state=model.make_state() if stateful else None
        )
        return outputs

    outputs = call()
    seconds = statistics.median(timeit.repeat(call, number=1, repeat=CALLS))
    plan = MLComputePlan.load_from_path(model.get_compiled_model_path())
    operations = plan.model_structure.program.functions[function].block.operations
    return CoreMlRun(outputs, seconds, placement(_planned(plan, op) for op in operations))


def placement(planned: Iterable[tuple[str | None, float]]) -> dict[str, Placement]:
    """Counts ops and sums their cost for each compute unit, from (unit, share of cost) of each op.

    Constants, which run nowhere, have no unit.
    """
    units: dict[str, Placement] = {}
    for unit, cost in planned:
        if unit is not None:
            placed = units.setdefault(unit, {"ops": 0, "cost": 0.0})
            placed["ops"] += 1
            placed["cost"] += cost
    return units


def unit_name(device: Any) -> str:
    """The unit of a coremltools device: NeuralEngine for MLNeuralEngineComputeDevice."""
    return type(device).__name__.removeprefix("ML").removesuffix("ComputeDevice")


def _planned(plan: Any, operation: Any) -> tuple[str | None, float]:
    usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
    cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
    return unit_name(usage.preferred_compute_device) if usage else None, cost.weight if cost else 0.0
