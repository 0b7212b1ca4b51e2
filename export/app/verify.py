"""Whether a folder's packages compute what JAX computes, and what else their programs show once they are read back."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.mil.liveness import PRODUCTS, arguments, peak_live_bytes
from export.mil.ops.table import is_constant
from export.mil.verify import LARGEST_RELATIVE_ERROR, LEAST_PSNR, verify_package

Figures = dict[str, Any]
# What torch calls the weights of a block's FFN, and coremltools after it.
FFN_WEIGHT = re.compile(r"blocks_(\d+)_ffn_(up|down)_")
SHOWN = 5  # warnings of a package


def verify_record(folder: Path, record: Mapping[str, Any]) -> Figures:
    """Runs each function of a package; figures by function, the worst relative error and PSNR of all.

    A figure that is no finite number is None.
    """
    functions = {name: _function(folder, record, name) for name in record["functions"]}
    return {
        **{key: record[key] for key in ("name", "weights", "bytes", "fp16_bytes")},
        "relative_error": worst(max, (each["relative_error"] for each in functions.values())),
        "psnr": worst(min, (each["psnr"] for each in functions.values())),
        "functions": functions,
    }


def failures(figures: Figures, least_psnr: float = LEAST_PSNR) -> list[str]:
    """One line for each figure beyond its limit; compressed weights are held to the PSNR alone."""
    error, psnr, found = figures["relative_error"], figures["psnr"], []
    if figures["weights"] == "fp16" and (error is None or error > LARGEST_RELATIVE_ERROR):
        found.append(f"{figures['name']}: relative error {_text(error, '.1e')} is above {LARGEST_RELATIVE_ERROR:g}")
    if psnr is None or psnr < least_psnr:
        found.append(f"{figures['name']}: PSNR {_text(psnr, '.1f')} dB is below {least_psnr:g} dB")
    return found


def lost_tiles(rows: Iterable[Figures], tiles: Sequence[int]) -> list[str]:
    """One line for each block whose FFN has other products in the saved program than its tiles make, k^2 + k."""
    found = [
        (row["name"], count)
        for row in rows
        if row["name"].startswith("dit")
        for count in next(iter(row["functions"].values()))["ffn_products"]
    ]
    pairs = zip(found, tiles, strict=False)
    return [
        f"{name}: block {i} has {count} products in its FFN, {k} tiles make {k * k + k}"
        for i, ((name, count), k) in enumerate(pairs)
        if count != k * k + k
    ]


def worst(choose: Any, figures: Iterable[float | None]) -> float | None:
    """The largest or smallest figure; None if any is not finite."""
    values = list(figures)
    return None if None in values else choose(values)


def _function(folder: Path, record: Mapping[str, Any], name: str) -> Figures:
    check = verify_package(folder / record["file"], folder / record["functions"][name]["golden"], name)
    summary, program = check.summary(), check.package.function(name)
    counts = Counter(op.op_type for op in program.operations if not is_constant(op))
    return {
        **{key: summary[key] for key in ("relative_error", "psnr", "outputs", "largest")},
        "warnings": len(check.warnings),
        "first_warnings": check.warnings[:SHOWN],
        "operations": sum(counts.values()),
        "counts": dict(counts.most_common()),
        "peak_live_bytes": peak_live_bytes(program),
        "ffn_products": ffn_products(program),
    }


def ffn_products(program: Any) -> list[int]:
    """How many products each block's FFN has, of the blocks in this package."""
    names = [var.name for op in program.operations if op.op_type in PRODUCTS for var in arguments(op)]
    counts = Counter(int(match[1]) for match in map(FFN_WEIGHT.match, names) if match and "_weight" in match.string)
    return [counts[i] for i in sorted(counts)]


def _text(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(np.float64(value), form)
