"""Report of the study of lazy sampling steps: tables for programs, a plot and a page for people."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.metrics.interval import Score, mean_score
from mobile_video_jax.report.blocks import Picture, Report, Section, Table
from mobile_video_jax.report.figures import panels, save_figure
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.lazy import REUSE_ARMS, STUDENT_ARMS, cells, fewer_steps
from mobile_video_jax.studies.shrinking_config import LazyStudy
from mobile_video_jax.studies.table import Column, Row, grouped, write_tables

NAMES = {
    "fewer": "teacher, all modules",
    "reuse": "teacher, reuse by sensitivity",
    "lazy": "teacher, reuse by gates",
    "chance": "teacher, reuse by chance",
    "none": "student, all modules",
    "sensitivity": "student, modules left out by sensitivity",
    "random": "student, modules left out by chance",
    "smaller": "student, pruned uniformly",
}
RIGHT, DISTANCE = Column("right", "samples right in all"), Column("distance", "distance from full sampling", "{:.2f}")
MEASURED = (Column("passes", "passes", "{:.1f}"), Column("phone_seconds", "phone, ms", "{:.1f}"), RIGHT, DISTANCE)
PLOT = "quality.png"


def write_lazy_study(name: str, study: LazyStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json, quality.png and report.html; returns what a program wants first."""
    rows = [table_row(result) for result in results]
    groups = summary(rows)
    write_tables(name, rows, groups, out)
    if rows:
        _plot(groups, out / PLOT)
        write_report(out / "report.html", _page(name, study, results, groups, out))
    pairs = [dataclasses.asdict(row.right) | {"pair": row.text} for row in differences(results)]
    return {"out": str(out), "cells": len(cells(study)), "finished": len(results), "differences": pairs}


def table_row(result: Row) -> Row:
    """A cell's means, phone time in milliseconds."""
    same = {key: result[key] for key in ("arm", "seed", "steps", "target", "passes")}
    means = {key: float(np.mean(result[key])) for key in ("right", "distance")}
    return same | {"phone_seconds": 1e3 * result["phone_seconds"]} | means


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean and deviation over seeds of each arm, number of steps and target."""
    return [
        {key: members[0][key] for key in ("arm", "steps", "target")}
        | {"seeds": len(members)}
        | {column.key: column.spread(members) for column in MEASURED}
        for members in grouped(rows, lambda row: (row["arm"], row["steps"], row["target"]))
    ]


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first model less the second on the same prompts, noise and seeds, with 95 % intervals over clips."""

    text: str
    right: Score
    distance: Score


def differences(results: Sequence[Row]) -> list[Difference]:
    """Reuse less fewer steps of at least its FLOPs, and less reuse by chance; students less the whole one."""
    at = {(r["arm"], r["steps"], r["target"], r["seed"]): r for r in results}
    pairs: dict[str, list[tuple[Row, Row]]] = {}
    for (arm, steps, target, seed), result in at.items():
        if arm in ("reuse", "lazy"):
            fewer, text = fewer_steps(steps, target), f"{NAMES[arm]}, {steps} steps, {target:.0%} saved, less"
            others = {f"{text} {fewer} steps": ("fewer", fewer, 0.0, seed)}
            others[f"{text} reuse by chance"] = ("chance", steps, target, seed)
            if arm == "reuse":
                others[f"{text} reuse by gates"] = ("lazy", steps, target, seed)
        elif arm in STUDENT_ARMS[1:]:
            others = {f"{NAMES[arm]}, less the whole one": ("none", steps, 0.0, seed)}
        else:
            continue
        for text, key in others.items():
            if key in at:
                pairs.setdefault(text, []).append((result, at[key]))
    return [Difference(text, *(_score(key, both) for key in ("right", "distance"))) for text, both in pairs.items()]


def _score(key: str, pairs: Iterable[tuple[Row, Row]]) -> Score:
    values = [np.array(one[key], np.float64) - np.array(other[key]) for one, other in pairs]
    return mean_score(np.concatenate(values))


def _page(name: str, study: LazyStudy, results: Sequence[Row], groups: Sequence[Row], out: Path) -> Report:
    facts = {
        "gates": f"{study.lazy.steps} steps of {study.lazy.batch_size} clips, penalty {study.lazy.penalty:g}",
        "students": f"{study.distill.steps} steps, then {study.phase_steps} with their modules left out",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "samples": f"{study.samples} held-out prompts a model; the teacher guided at {study.sampling.guidance:g}",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    lead = "One teacher sampled in fewer steps or with reused outputs, and its 4-step student with modules left out."
    text = (
        "Mean, and deviation over seeds. Passes are a clip's FLOPs in those of the teacher's network; the phone's time "
        "is estimated; distance is the root mean squared difference in grey levels from the teacher's clip of "
        f"{max(study.steps)} steps with the same noise."
    )
    columns = ["model", "steps", "saved", *(column.heading for column in MEASURED)]
    lines = [
        [NAMES[group["arm"]], group["steps"], f"{group['target']:.0%}", *(column.text(group) for column in MEASURED)]
        for group in groups
    ]
    compared: list[Any] = [
        [row.text, row.right.n, _interval(row.right, 100.0), _interval(row.distance)] for row in differences(results)
    ]
    caption = (
        "Differences on the same prompts and noise with 95 % intervals over clips: points of samples right; distance."
    )
    blocks: list[Any] = [
        Table(columns, lines),
        Table(["model", "pairs", "samples right", "distance"], compared, caption),
        Picture("Samples right and distance from full sampling, by passes.", out / PLOT),
    ]
    return Report(f"Study: {name}", lead, facts, [Section("Quality", text, blocks)])


def _interval(score: Score, factor: float = 1.0) -> str:
    low, high = ((factor * end if end is not None else float("nan")) for end in (score.low, score.high))
    return f"{factor * score.value:+.2f} ({low:+.2f} to {high:+.2f})"


def _plot(groups: Sequence[Row], path: Path) -> None:
    figure, both = panels(2, width=11)
    for axes, column in zip(both, (RIGHT, DISTANCE), strict=True):
        for members in grouped(
            groups, lambda group: (group["arm"], group["target"] if group["arm"] in REUSE_ARMS else 0)
        ):
            saved = f", {members[0]['target']:.0%}" if members[0]["arm"] in REUSE_ARMS else ""
            x = [group["passes"]["mean"] for group in members]
            y, deviation = ([group[column.key][part] for group in members] for part in ("mean", "std"))
            axes.errorbar(x, y, deviation, marker="o", capsize=3, label=members[0]["arm"] + saved)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("passes of the network for a clip")
        axes.set_ylabel(column.heading)
    both[-1].legend(frameon=False, ncols=2)
    save_figure(figure, path)
