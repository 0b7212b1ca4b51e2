"""Runs a saved package on reference inputs and compares its outputs with the reference's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.types.symbolic import is_symbolic

from export.agreement import Agreement, agreements, figures, passes
from export.golden import Feature, Golden, read_golden
from export.mil import axes
from export.mil.evaluate import evaluate
from export.mil.load import Package, load_package
from export.mil.ops.constexpr import PREFIX
from export.mil.ops.state import is_state
from export.mil.ranges import Range


@dataclass(frozen=True)
class Verification:
    """A package's outputs beside the reference's. A `compressed` package is held to the PSNR alone; see Evaluation."""

    package: Package
    function: str
    golden: Golden
    outputs: dict[str, Agreement]
    compressed: bool
    largest: Range | None
    warnings: list[str]

    @property
    def passed(self) -> bool:
        return passes(self.outputs, self.compressed)

    def summary(self) -> dict[str, Any]:
        """The JSON of export.verify; a figure that is not finite is null."""
        return {
            "package": str(self.package.path),
            "function": self.function,
            "bytes": self.package.bytes,
            "compressed": self.compressed,
            "passed": self.passed,
            **figures(self.outputs),
            "largest": self.largest and {"name": self.largest.name, "value": self.largest.largest},
            "warnings": self.warnings,
        }


def verify_package(
    package: Path, inputs: Path, function: str | None = None, flush_to_zero: bool = False
) -> Verification:
    """Runs a function of a saved package on the inputs of an .npz file, and compares with its outputs; see read_golden.

    Raises UserError for a package or a file that cannot be read, or that do not belong together.
    """
    loaded = load_package(package)
    program = loaded.function(function)
    golden = read_golden(inputs, *features(program))
    evaluation = evaluate(program, golden.inputs, flush_to_zero=flush_to_zero)
    return Verification(
        package=loaded,
        function=function or loaded.default_function,
        golden=golden,
        outputs=agreements(golden.outputs, evaluation.outputs),
        compressed=any(op.op_type.startswith(PREFIX) for op in program.operations),
        largest=evaluation.largest,
        warnings=evaluation.warnings + axes.warnings(program),
    )


def features(function: Any) -> tuple[dict[str, Feature], dict[str, Feature]]:
    """The inputs, without states, and the outputs of a function."""
    inputs = {name: _feature(var) for name, var in function.inputs.items() if not is_state(var)}
    return inputs, {var.name: _feature(var) for var in function.outputs}


def as_text(summary: dict[str, Any]) -> str:
    """The summary as lines of text."""
    lines = [f"{'output':32}{'relative error':>16}{'PSNR':>12}"]
    for name, row in summary["outputs"].items():
        error, psnr = (row[key] for key in ("relative_error", "psnr"))
        error_text = "not finite" if error is None else f"{error:.2e}"
        psnr_text = "not finite" if psnr is None else f"{psnr:.1f} dB"
        lines.append(f"{name:32}{error_text:>16}{psnr_text:>12}")
    if largest := summary["largest"]:
        lines.append(f"largest value: {largest['value']:.6g} in {largest['name']}; fp16 ends at 65,504")
    if core_ml := summary.get("core_ml"):
        lines.append(f"Core ML: {1e3 * core_ml['seconds']:.2f} ms a call")
        for unit, placed in core_ml["placement"].items():
            lines.append(f"  {unit}: {placed['ops']} ops, {placed['cost']:.0%} of the cost")
    lines.append("passed" if summary["passed"] else "failed: see the limits under --help")
    return "\n".join(lines)


def _feature(var: Any) -> Feature:
    shape = tuple(None if is_symbolic(size) else int(size) for size in var.shape)
    return Feature(shape, np.dtype(types.nptype_from_builtin(var.dtype)))
