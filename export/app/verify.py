"""The packages of a folder, verified against JAX, and what else their saved programs show."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.agreement import LARGEST_RELATIVE_ERROR, LEAST_PSNR
from export.mil.liveness import PRODUCTS, arguments, peak_live_bytes
from export.mil.ops.table import is_constant
from export.mil.verify import verify_package

Figures = dict[str, Any]
# The name of the weights of a block's FFN in torch, and after it in coremltools.
FFN_WEIGHT = re.compile(r"blocks_(\d+)_ffn_(up|down)_")
SHOWN = 5  # warnings of a package


def verify_record(folder: Path, record: Mapping[str, Any]) -> Figures:
    """Verifies each function of a package of manifest.json: figures by function, the worst error and PSNR of all.

    A figure that is not finite is None.
    """
    functions = {name: _verify_function(folder, record, name) for name in record["functions"]}
    return {
        **{key: record[key] for key in ("name", "weights", "bytes", "fp16_bytes")},
        "relative_error": worst(max, (each["relative_error"] for each in functions.values())),
        "psnr": worst(min, (each["psnr"] for each in functions.values())),
        "functions": functions,
    }


def failures(figures: Figures, least_psnr: float = LEAST_PSNR) -> list[str]:
    """One line for each figure beyond its limit; compressed weights are held to the PSNR alone.

    A figure that is not finite comes with the worst warning, which names the first op that went wrong.
    """
    error, psnr, name = figures["relative_error"], figures["psnr"], figures["name"]
    warnings = [line for each in figures["functions"].values() for line in each["first_warnings"]]
    cause = f", first in {warnings[0]}" if warnings and None in (error, psnr) else ""
    lines = []
    if figures["weights"] in ("fp16", "fp32") and (error is None or error > LARGEST_RELATIVE_ERROR):
        lines.append(f"{name}: relative error {_text(error, '.1e')} is above {LARGEST_RELATIVE_ERROR:g}{cause}")
    if psnr is None or psnr < least_psnr:
        lines.append(f"{name}: PSNR {_text(psnr, '.1f')} dB is below {least_psnr:g} dB{cause}")
    return lines


def lost_tiles(rows: Iterable[Figures], tiles: Sequence[int], *, cut_inputs: bool = False) -> list[str]:
    """One line for each block whose FFN has another count of products in the saved program than k tiles make."""
    expected = [k * k + k if cut_inputs else 2 * k for k in tiles]
    blocks = [
        (row["name"], count)
        for row in rows
        if row["name"].startswith("dit")
        for count in _most_products(row["functions"].values())
    ]
    return [
        f"{name}: block {i} has {count} products in its FFN, {k} tiles make {products}"
        for i, ((name, count), k, products) in enumerate(zip(blocks, tiles, expected, strict=False))
        if count != products
    ]


def _most_products(functions: Iterable[Figures]) -> list[int]:
    """The FFN products of each block in the function that has most: a step may do without some."""
    counts: Counter[int] = Counter()
    for figures in functions:
        counts |= Counter(figures["ffn_products"])
    return [counts[i] for i in sorted(counts)]


def worst(choose: Any, figures: Iterable[float | None]) -> float | None:
    """The largest or smallest figure; None if any is None."""
    values = list(figures)
    return None if None in values else choose(values)


def _verify_function(folder: Path, record: Mapping[str, Any], name: str) -> Figures:
    verification = verify_package(folder / record["file"], folder / record["functions"][name]["golden"], name)
    summary, program = verification.summary(), verification.package.function(name)
    counts = Counter(op.op_type for op in program.operations if not is_constant(op))
    return {
        **{key: summary[key] for key in ("relative_error", "psnr", "outputs", "largest")},
        "warnings": len(verification.warnings),
        "first_warnings": verification.warnings[:SHOWN],
        "operations": sum(counts.values()),
        "counts": dict(counts.most_common()),
        "peak_live_bytes": peak_live_bytes(program),
        "ffn_products": ffn_products(program),
    }


def ffn_products(program: Any) -> dict[int, int]:
    """The count of products in the FFN of each block of this function, by the block's index in the package.

    One that is taken piece by piece of the tokens counts once: its weights are one tile.
    """
    names = {var.name for op in program.operations if op.op_type in PRODUCTS for var in arguments(op)}
    counts = Counter(int(match[1]) for match in map(FFN_WEIGHT.match, names) if match and "_weight" in match.string)
    return {i: counts[i] for i in sorted(counts)}


def _text(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(np.float64(value), form)
