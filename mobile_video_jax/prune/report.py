"""The report of pruning: report.html, report.json and two plots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mobile_video_jax.core.files import write_json
from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.prune.curves import Point
from mobile_video_jax.prune.plan import costs_of, sizes_of
from mobile_video_jax.prune.selection import Pruned
from mobile_video_jax.prune.units import WIDTHS, kept_blocks, kept_shapes
from mobile_video_jax.report.blocks import Curves, Report, Section, Series, Table
from mobile_video_jax.report.figures import save_figure
from mobile_video_jax.report.page import write_report

PAGE, NUMBERS = "report.html", "report.json"
UNITS = {
    "parameters": "parameters",
    "flops": "FLOPs",
    "activations": "activation bytes",
    "latency": "phone latency (estimate)",
}


def write_prune_report(pruned: Pruned, out: Path, seconds: float) -> dict[str, Any]:
    """Writes report.html, report.json, sensitivity.png and kept.png; returns the values of report.json."""
    numbers = prune_numbers(pruned) | {"seconds": seconds, "commit": git_revision(), "hardware": hardware()}
    write_json(out / NUMBERS, numbers)
    if pruned.curves:
        _sensitivity_plot(pruned.curves, out / "sensitivity.png")
    _kept_plot(pruned, out / "kept.png")
    write_report(out / PAGE, _page(pruned, numbers))
    return numbers


def prune_numbers(pruned: Pruned) -> dict[str, Any]:
    """Every figure as plain values."""
    plan, before = pruned.plan, pruned.plan.space.units.shapes
    models = {"before": before} | {name: kept_shapes(keep, before) for name, keep in pruned.keeps.items()}
    return {
        "models": {name: sizes_of(shapes) | costs_of(plan, shapes) for name, shapes in models.items()},
        "kd_loss": pruned.losses,
        "chosen": pruned.chosen,
        "limits": dict(plan.limits),
        "stages": {level: dict(limits) for level, limits in plan.level_limits.items()},
        "held_out_loss": pruned.held_out,
        "rank_correlation": pruned.correlation,
        "units": [[*unit, score] for unit, score in pruned.scores.items()],
        "curves": {
            level: [{"removed": point.removed, "loss": point.loss, **point.costs} for point in points]
            for level, points in pruned.curves.items()
        },
    }


def _page(pruned: Pruned, numbers: Mapping[str, Any]) -> Report:
    facts = {
        "chosen": f"{pruned.chosen} search",
        "budget": ", ".join(f"{limit:,.4g} {name}" for name, limit in pruned.plan.limits.items()),
        "held-out velocity loss": " → ".join(f"{value:.4f}" for value in pruned.held_out.values())
        + ", before any recovery",
        "hardware": numbers["hardware"],
        "commit": numbers["commit"],
    }
    lead = (
        "Blocks, attention heads and FFN channels removed from a transformer, those first whose absence changes its "
        "velocities and hidden features least."
    )
    sections = [
        Section("Before and after", "", [_models(pruned, numbers)]),
        Section("Sensitivity", _about_scores(pruned), _curves(pruned.curves)),
        Section("What was kept", "Of each block of the model before.", [_kept(pruned)]),
    ]
    return Report("Pruned transformer", lead, facts, sections)


def _models(pruned: Pruned, numbers: Mapping[str, Any]) -> Table:
    before = numbers["models"]["before"]
    rows: list[list[str | int | float]] = []
    for name, model in numbers["models"].items():
        loss = pruned.losses.get(name)
        sizes = [model[key] for key in ("blocks", "heads", "cross_heads", "ffn", "parameters")]
        shares = [f"{model[cost] / before[cost]:.3f}" for cost in UNITS]
        rows.append([name, "–" if loss is None else f"{loss:.4f}", *sizes, *shares])
    columns = [
        "model",
        "KD loss",
        "blocks",
        "heads",
        "cross",
        "FFN",
        "parameters",
        "share",
        "FLOPs",
        "bytes",
        "latency",
    ]
    caption = (
        "The last columns are shares of the model before: of parameters; and, for one forward pass of one clip, of "
        "FLOPs, of the bytes that products write and of the estimated time on a phone (cost/phone)."
    )
    return Table(columns, rows, caption, highlight=[list(numbers["models"]).index(pruned.chosen)])


def _about_scores(pruned: Pruned) -> str:
    text = "The distillation loss without the least important units of one level; nothing is trained in between."
    if pruned.correlation:
        values = ", ".join(f"{value:.2f} ({kind})" for kind, value in pruned.correlation.items())
        text += f" Rank correlation of exact and first-order scores: {values}."
    return text


def _curves(curves: Mapping[str, list[Point]]) -> list[Curves]:
    blocks = [Curves("Loss by share removed", _series(curves, None), "share of the level removed", "KD loss")]
    for cost, label in UNITS.items():
        blocks.append(Curves(f"Loss by {label}", _series(curves, cost), f"{label}, share of the whole", "KD loss"))
    return blocks


def _series(curves: Mapping[str, list[Point]], cost: str | None) -> dict[str, Series]:
    def x(points: list[Point], point: Point) -> float:
        return point.removed if cost is None else float(point.costs[cost] / points[0].costs[cost])

    return {
        level: ([x(points, point) for point in points], [point.loss for point in points])
        for level, points in curves.items()
    }


def _kept(pruned: Pruned) -> Table:
    full = pruned.plan.space.units.shapes
    blocks = kept_blocks(pruned.keep, full)
    rows = []
    for i, shape in enumerate(full):
        widths = [f"{getattr(blocks[i], kind)} of {getattr(shape, kind)}" if i in blocks else "–" for kind in WIDTHS]
        heads = [_numbers(getattr(pruned.keep, kind)[i]) if i in blocks else "–" for kind in WIDTHS[:2]]
        rows.append([f"{i}", "kept" if i in blocks else "removed", *widths, *heads])
    columns = ["block", "", "heads", "cross heads", "FFN channels", "which heads", "which cross heads"]
    return Table(columns, rows)


def _numbers(mask: np.ndarray) -> str:
    return " ".join(map(str, np.flatnonzero(mask)))


def _sensitivity_plot(curves: Mapping[str, list[Point]], path: Path) -> None:
    figure = Figure(figsize=(15, 3.6), layout="constrained", dpi=150)
    names: dict[str | None, str] = {None: "share of the level removed"}
    names |= {cost: f"{label},\nshare of the whole" for cost, label in UNITS.items()}
    for axes, (cost, label) in zip(figure.subplots(1, len(names), sharey=True), names.items(), strict=True):
        for level, (x, y) in _series(curves, cost).items():
            axes.plot(x, y, marker="o", label=level)
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
        if cost is None:
            axes.set_ylabel("KD loss")
            axes.legend(frameon=False)
        else:
            axes.invert_xaxis()
    save_figure(figure, path)


def _kept_plot(pruned: Pruned, path: Path) -> None:
    """A map: a row a block, a column a head or group of channels; removed blocks are empty."""
    keep, units = pruned.keep, pruned.plan.space.units
    masks = {"heads": keep.heads, "cross heads": keep.cross_heads, "FFN channels": keep.ffn[:, :: units.step("ffn")]}
    widths = [max(mask.shape[1], 4) for mask in masks.values()]
    figure = Figure(figsize=(10, 1 + 0.25 * len(keep.block)), layout="constrained", dpi=150)
    for axes, (name, mask) in zip(figure.subplots(1, 3, width_ratios=widths), masks.items(), strict=True):
        shown = np.where(keep.block[:, None] > 0, 1 + mask, 0)
        axes.pcolormesh(shown, cmap="Blues", vmin=0, vmax=2.6, edgecolors="white", linewidth=0.6)
        axes.set_xticks(np.arange(mask.shape[1]) + 0.5, map(str, range(mask.shape[1])))
        axes.set_yticks(np.arange(len(mask)) + 0.5, map(str, range(len(mask))))
        axes.invert_yaxis()
        axes.set_title(name)
        axes.set_ylabel("block")
    save_figure(figure, path)
