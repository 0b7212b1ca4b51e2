"""The report of an export: report.html and report.json."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from export.app.verify import Figures
from export.app.whole_clip import GeneratedClip
from mobile_video_jax.core.files import write_json
from mobile_video_jax.report.blocks import Cell, ClipView, Gallery, GalleryRow, Report, Section, Table
from mobile_video_jax.report.page import write_report

PAGE, NUMBERS = "report.html", "report.json"
PACKAGES = "Run op by op, and compared with what JAX computes in float32."
ASSETS = (
    "Run by Apple's own runtime on this machine's CPU: the asset, or where that is slow the same network in float32."
)
FP16 = (
    "Every op runs in float32 and is rounded to fp16 as the package declares. Fp16 ends at 65,504; below 6.1e-5 its "
    "numbers are subnormal, which some hardware reads as 0."
)
FFN = (
    "The largest FFN, converted alone with k tiles. Live activations are counted from the saved program, a buffer for "
    "each op's result: between both products one tile of the hidden activation is in use, 1/k of it, twice or, while "
    "partial sums are added, three times."
)


def write_export_report(
    folder: Path,
    manifest: dict[str, Any],
    rows: Sequence[Figures],
    assets: Sequence[Figures],
    clips: Sequence[GeneratedClip],
    ffn: list[dict[str, int]],
) -> dict[str, Any]:
    """Writes report.html and report.json, and returns the latter's content."""
    verification, warnings = manifest["verification"], manifest.get("warnings", [])
    origin = {key: manifest[key] for key in ("model", "stage", "commit", "versions")}
    report = {**origin, **verification, "warnings": warnings, "packages": list(rows)}
    report |= {"assets": list(assets), "ffn": ffn}
    write_json(folder / NUMBERS, report)
    sections = [
        *([Section("Core ML packages", PACKAGES, [_packages(rows)])] if rows else []),
        *([Section("Core AI assets", ASSETS, [_assets(assets)])] if assets else []),
        *([Section("Values near fp16's ends", FP16, [_ends(rows)])] if rows else []),
        *_mixed(manifest),
        *([Section("Memory of the tiled FFN", FFN, [_ffn(ffn)])] if ffn else []),
        *([Section("A whole clip", "Prompt to frames, from the same noise.", [_gallery(clips)])] if clips else []),
    ]
    lead = "All checks passed." if verification["passed"] else f"Failed: {'; '.join(verification['failures'])}."
    lead = " ".join([lead, *(f"Warning: {line}." for line in warnings)])
    facts = {"model": manifest["model"], "commit": manifest["commit"], "clips": ", ".join(_clips(manifest))}
    write_report(folder / PAGE, Report(f"Export of {Path(manifest['model']).name}", lead, facts, sections))
    return report


def _clips(manifest: dict[str, Any]) -> list[str]:
    return [clip["clip"] for clip in manifest["clips"]]


def _functions(rows: Sequence[Figures]) -> Iterator[tuple[str, Figures, Figures]]:
    """The name of each function, its package's figures and its own."""
    for row in rows:
        for name, figures in row["functions"].items():
            yield row["name"] if len(row["functions"]) == 1 else f"{row['name']}, {name}", row, figures


def _packages(rows: Sequence[Figures]) -> Table:
    columns = [
        "package",
        "relative error",
        "PSNR, dB",
        "MB",
        "MB in fp16",
        "ops",
        "peak activations, kB",
        "FFN products",
    ]
    cells = [
        [
            name,
            _number(figures["relative_error"]),
            _number(figures["psnr"]),
            row["bytes"] / 1e6,
            row["fp16_bytes"] / 1e6,
            figures["operations"],
            figures["peak_live_bytes"] / 1e3,
            sum(figures["ffn_products"].values()) or "–",
        ]
        for name, row, figures in _functions(rows)
    ]
    return Table(columns, cells)


def _assets(assets: Sequence[Figures]) -> Table:
    columns = ["asset", "entry point", "executed in", "relative error", "PSNR, dB", "MB"]
    cells: list[list[Cell]] = [
        [row["name"], name, row["executed"], _number(each["relative_error"]), _number(each["psnr"]), row["bytes"] / 1e6]
        for row in assets
        for name, each in row["functions"].items()
    ]
    return Table(columns, cells)


def _ends(rows: Sequence[Figures]) -> Table:
    cells = [
        [
            name,
            figures["largest"]["value"],
            figures["largest"]["name"],
            figures["warnings"],
            "\n".join(figures["first_warnings"][:1]),
        ]
        for name, _, figures in _functions(rows)
        if figures["largest"]
    ]
    return Table(["package", "largest value", "of op", "warnings", "the worst"], cells)


def _mixed(manifest: dict[str, Any]) -> list[Section]:
    """The count of tensors of each number of bits."""
    recipes = {record["name"]: Counter(record["bits"].values()) for record in manifest["packages"] if "bits" in record}
    if not recipes:
        return []
    bits = sorted({bits for counts in recipes.values() for bits in counts})
    cells: list[list[Cell]] = [[name, *(counts[each] for each in bits)] for name, counts in recipes.items()]
    table = Table(["package", *(f"{each} bits" for each in bits)], cells)
    return [Section("Mixed weights", "Tensors by their bits; manifest.json names each.", [table])]


def _ffn(rows: list[dict[str, int]]) -> Table:
    whole = rows[0]
    columns = ["k", "products", "peak activations, kB", "hidden part, kB", "of k = 1", "largest tile, kB", "of k = 1"]
    cells = [
        [
            row["tiles"],
            row["products"],
            row["peak_live_bytes"] / 1e3,
            row["hidden_bytes"] / 1e3,
            row["hidden_bytes"] / whole["hidden_bytes"],
            row["tile_bytes"] / 1e3,
            row["tile_bytes"] / whole["tile_bytes"],
        ]
        for row in rows
    ]
    return Table(columns, cells)


def _gallery(clips: Sequence[GeneratedClip]) -> Gallery:
    rows = []
    for clip in clips:
        figures = clip.figures
        views = [ClipView(clip.jax, "JAX")]
        if clip.fp16 is not None:
            views.append(ClipView(clip.fp16, f"packages in fp16, {figures['fp16_psnr']:.1f} dB"))
        if clip.packages is not None:
            views.append(ClipView(clip.packages, f"Core ML packages, {figures['psnr']:.1f} dB"))
        if clip.assets is not None:
            views.append(ClipView(clip.assets, f"Core AI assets, {figures['assets_psnr']:.1f} dB"))
        rows.append(GalleryRow(f"{clip.clip}: {clip.prompt}", views))
    return Gallery(rows, columns=max(len(row.clips) for row in rows))


def _number(value: float | None) -> Cell:
    return "not finite" if value is None else value
