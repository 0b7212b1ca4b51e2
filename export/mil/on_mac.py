"""What a Mac adds: the package run by Core ML itself, where it places each op, and how long a call takes."""

import statistics
import timeit
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from coremltools.models import MLModel
from coremltools.models.compute_plan import MLComputePlan

from export.mil.check import Check, as_json, passes
from export.mil.golden import agreements
from export.mil.ops.state import is_state

CALLS = 10


@dataclass(frozen=True)
class CoreMlRun:
    """Outputs by name, the median seconds of a call, and by compute unit the number of ops and their share of cost."""

    outputs: dict[str, np.ndarray]
    seconds: float
    placement: dict[str, dict[str, float]]


def add_core_ml(check: Check, summary: dict[str, Any]) -> dict[str, Any]:
    """The summary with Core ML's own run, which is held to the PSNR alone: its accumulators may be of fp16 too."""
    run = run_core_ml(check)
    found = agreements(check.golden.outputs, run.outputs)
    core_ml = {"seconds": run.seconds, "placement": run.placement, "outputs": as_json(found)}
    return summary | {"passed": summary["passed"] and passes(found, compressed=True), "core_ml": core_ml}


def run_core_ml(check: Check) -> CoreMlRun:
    """Runs a checked package on its golden inputs with all compute units; states begin at zero, as in the check."""
    name = None if check.function == check.package.default_function else check.function
    model = MLModel(str(check.package.path), function_name=name)
    stateful = any(is_state(var) for var in check.package.function(name).inputs.values())

    def call() -> dict[str, np.ndarray]:
        return model.predict(check.golden.inputs, state=model.make_state() if stateful else None)

    outputs = call()
    seconds = statistics.median(timeit.repeat(call, number=1, repeat=CALLS))
    plan = MLComputePlan.load_from_path(model.get_compiled_model_path())
    operations = plan.model_structure.program.functions[check.function].block.operations
    return CoreMlRun(outputs, seconds, placement(_planned(plan, op) for op in operations))


def placement(planned: Iterable[tuple[str | None, float]]) -> dict[str, dict[str, float]]:
    """By compute unit, from (unit, share of cost) of each op. Constants, which run nowhere, have no unit."""
    units: dict[str, dict[str, float]] = {}
    for unit, cost in planned:
        if unit is not None:
            placed = units.setdefault(unit, {"ops": 0, "cost": 0.0})
            placed["ops"] += 1
            placed["cost"] += cost
    return units


def unit_name(device: Any) -> str:
    """MLNeuralEngineComputeDevice is NeuralEngine."""
    return type(device).__name__.removeprefix("ML").removesuffix("ComputeDevice")


def _planned(plan: Any, operation: Any) -> tuple[str | None, float]:
    usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
    cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
    return unit_name(usage.preferred_compute_device) if usage else None, cost.weight if cost else 0.0
