"""Runs a saved package on reference inputs and compares its outputs with the reference's."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.mil.evaluate import evaluate
from export.mil.golden import Agreement, Golden, agreements, read_golden
from export.mil.load import Package, load_package
from export.mil.ops.constexpr import PREFIX
from export.mil.ranges import Range

# Rounding every value to fp16 costs transformers and decoders that are right 4e-4 to 1.4e-3, measured.
LARGEST_RELATIVE_ERROR = 2e-3
# The PSNR in dB below which Apple's converters refuse a diffusion model (ml-stable-diffusion, DiffusionKit).
LEAST_PSNR = 35.0


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
            "relative_error": _finite(np.max([each.relative_error for each in self.outputs.values()])),
            "psnr": _finite(np.min([each.psnr for each in self.outputs.values()])),
            "passed": self.passed,
            "outputs": as_json(self.outputs),
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
    golden = read_golden(inputs, program)
    evaluation = evaluate(program, golden.inputs, flush_to_zero=flush_to_zero)
    return Verification(
        package=loaded,
        function=function or loaded.default_function,
        golden=golden,
        outputs=agreements(golden.outputs, evaluation.outputs),
        compressed=any(op.op_type.startswith(PREFIX) for op in program.operations),
        largest=evaluation.largest,
        warnings=evaluation.warnings,
    )


def passes(outputs: Mapping[str, Agreement], compressed: bool) -> bool:
    """True where every output has a PSNR of 35 dB and, unless weights are compressed, a relative error of 2e-3."""
    return all(
        each.psnr >= LEAST_PSNR and (compressed or each.relative_error <= LARGEST_RELATIVE_ERROR)
        for each in outputs.values()
    )


def as_text(summary: dict[str, Any]) -> str:
    """The summary as lines of text."""
    lines = [f"{'output':32}{'relative error':>16}{'PSNR':>12}"]
    for name, figures in summary["outputs"].items():
        error, psnr = (figures[key] for key in ("relative_error", "psnr"))
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


def as_json(outputs: Mapping[str, Agreement]) -> dict[str, Any]:
    """The figures of each output; one that is not finite is None."""
    return {name: {key: _finite(value) for key, value in asdict(each).items()} for name, each in outputs.items()}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
