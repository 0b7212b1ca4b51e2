"""Report of the study of step distillation: tables for programs, a plot and a page for people."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.report.blocks import Picture, Report, Section, Table
from mobile_video_jax.report.figures import panels, save_figure
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.chain import TEACHER
from mobile_video_jax.studies.distillation import ARMS, cells
from mobile_video_jax.studies.distillation_claims import DISTANCE, KEEP, RIGHT, differences, retention
from mobile_video_jax.studies.shrinking_config import DistillationStudy
from mobile_video_jax.studies.table import Column, Row, grouped, spread, write_tables

NAMES = {
    "conv": "adversarial, convolutional head",
    "dit": "adversarial, transformer head",
    "kd": "distillation alone",
    "mismatched": "the same, mismatched captions as fakes",
    "taps": "two taps, a logit for each frame",
    "renoise": "distillation alone, x0 noised afresh",
    "renoise-dit": "adversarial, transformer head, x0 noised afresh",
    "dmd": "distribution matching",
    "dmd2": "DMD2",
    "scm": "continuous-time consistency",
    "kdmd": "K-DMD",
    "teacher": "teacher, guided",
    "teacher-4": "teacher, guided",
    "student": "student before, guided",
    "student-4": "student before, unguided",
}
MEASURED = (
    Column("colour", "colour"),
    Column("shape", "shape"),
    Column("motion", "motion"),
    RIGHT,
    DISTANCE,
    Column("teacher_distance", "from the teacher's samples", "{:.3f}"),
    Column("motion_energy", "motion energy", "{:.2f}"),
    Column("diversity", "diversity", "{:.1f}"),
)
SHARE = Column("share", "of the teacher's")  # of the samples that its seed's teacher has right in all
PLOT = "quality.png"


def write_distillation_study(name: str, study: DistillationStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json, quality.png and report.html; returns what a program wants first."""
    rows = [row for result in results for row in table_rows(result)]
    groups = summary(rows)
    write_tables(name, rows, groups, out)
    if rows:
        _plot(groups, out / PLOT)
        write_report(out / "report.html", _page(name, study, results, groups, out))
    distilled = [group for group in groups if group["arm"] in ARMS and group["steps"] == study.distill.sampling_steps]
    best = max(distilled, key=lambda group: group[RIGHT.key]["mean"], default=None)
    label = best["arm"] if best else None
    return {"out": str(out), "cells": len(cells(study)), "finished": len(results), "best": label}


def table_rows(result: Row) -> list[Row]:
    """A row for each number of steps of a cell. `motion` is the attribute, `motion_energy` that over real clips'."""
    return [
        {"arm": result["arm"], "seed": result["seed"], "repeat": result.get("repeat", 0), "steps": int(steps)}
        | {
            key: evaluated[key]
            for key in ("evaluations", "distance", "teacher_distance", "diversity", "seconds_per_clip")
        }
        | {"motion_energy": evaluated["motion"], **evaluated["accuracy"]}
        for steps, evaluated in result["steps"].items()
    ]


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean and deviation over seeds of each arm at each number of steps; `share` is of the same seed's teacher's."""
    teachers = {row["seed"]: row["all"] for row in rows if row["arm"] == TEACHER}
    merged = []
    for members in grouped(rows, lambda row: (row["arm"], row["steps"])):
        shares = [row["all"] / teachers[row["seed"]] for row in members if teachers.get(row["seed"])]
        merged.append(
            {key: members[0][key] for key in ("arm", "steps", "evaluations")}
            | {"seeds": len(members), SHARE.key: spread(shares)}
            | {column.key: column.spread(members) for column in MEASURED}
            | {"seconds_per_clip": spread([row["seconds_per_clip"] for row in members])}
        )
    return merged


def _retention(results: Sequence[Row], steps: int) -> Table:
    lines: list[list[str | int | float]] = [
        [NAMES[x.arm], x.cells, f"{x.right:.1%}", f"{x.ratio:.1%}", f"{x.low:.1%} to {x.high:.1%}", x.verdict]
        for x in retention(results, steps)
    ]
    columns = ["model", "cells", "samples right", "of the teacher's", "95 % interval", f"keeps {KEEP:.0%}"]
    caption = (
        f"At {steps} steps beside the guided teacher in all its steps, prompt by prompt. Intervals are over prompts: "
        "other trainings may be outside of them."
    )
    return Table(columns, lines, caption)


def _curves(results: Sequence[Row]) -> list[Table]:
    """Samples right and their distance from the teacher's on the way; none where cells are evaluated at the end."""
    on_the_way = [result for result in results if len(result.get("curve", ())) > 1]
    lines: list[list[str | int | float]] = []
    for members in grouped(on_the_way, lambda result: result["arm"]):
        for points in zip(*(result["curve"] for result in members), strict=True):
            right = spread([point["accuracy"]["all"] for point in points])
            distance = spread([point["teacher_distance"] for point in points])
            texts = (f"{right['mean']:.1%} ± {right['std']:.1%}", f"{distance['mean']:.3f} ± {distance['std']:.3f}")
            lines.append([NAMES[members[0]["arm"]], points[0]["step"], *texts])
    columns = ["model", "steps of distillation", "samples right", "from the teacher's samples"]
    return [Table(columns, lines, "On the way, at the steps that the student is trained for.")] if lines else []


def _differences(rows: Sequence[Row], steps: int) -> Table:
    lines = []
    for row in differences(rows, steps):
        cells = [
            f"{score['value']:+.3f}"
            + ("" if score["low"] is None else f" ({score['low']:+.3f} to {score['high']:+.3f})")
            for score in (row[RIGHT.key], row[DISTANCE.key])
        ]
        lines.append([NAMES[row["first"]], NAMES[row["second"]], row[RIGHT.key]["n"], *cells])
    columns = ["model", "less", "pairs", "samples right", "kernel distance"]
    return Table(columns, lines, f"Differences in pairs of one seed at {steps} steps, with 95 % intervals.")


def _heads(results: Sequence[Row]) -> list[Table]:
    """Discriminators against the frozen student, on held-out clips; none where the study trains none."""
    measured = [result for result in results if "head" in result]
    if not measured:
        return []
    keys = list(measured[0]["head"])
    lines = []
    for members in grouped(measured, lambda result: (result["arm"],)):
        spreads = [spread([result["head"][key] for result in members]) for key in keys]
        lines.append([NAMES[members[0]["arm"]], *(f"{s['mean']:.3f} ± {s['std']:.3f}" for s in spreads)])
    caption = (
        "Discriminators trained against the frozen student, on held-out clips noised to time T: AUC of real against "
        "generated clips, and the share of real clips that score higher with their own caption than with another's."
    )
    return [Table(["discriminator", *keys], lines, caption)]


def _page(name: str, study: DistillationStudy, results: Sequence[Row], groups: Sequence[Row], out: Path) -> Report:
    few_step = "kdmd" in study.arms
    facts = {
        "distillation": f"{study.distill.steps} steps of {study.distill.batch_size} clips, others at its counted FLOPs",
        **({"few-step teachers": "an adapter a seed, of an arm's FLOPs, beside K-DMD's own"} if few_step else {}),
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "samples": f"{study.samples} held-out prompts a model; guided at {study.sampling.guidance:g}",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    lead = (
        "One student, pruned from its teacher and recovered, taught to generate in a few unguided steps in several "
        "ways at one budget of steps."
    )
    features = "another seed's teacher" if len(study.seeds) > 1 else "the teacher, through which discriminators look"
    text = (
        "Mean, and deviation over seeds. Samples are read back by a rule-based detector; the kernel distance is to "
        f"held-out real clips, and to the guided teacher's samples, on features of {features}; motion energy is "
        "relative to the real clips'; diversity is in grey levels."
    )
    measured = (*MEASURED[:4], SHARE, *MEASURED[4:])
    columns = ["model", "steps", "evaluations", *(column.heading for column in measured)]
    lines = [
        [NAMES[group["arm"]], group["steps"], group["evaluations"], *(column.text(group) for column in measured)]
        for group in groups
    ]
    plot = Picture("Samples right in all attributes, and distance from real clips, by evaluations.", out / PLOT)
    floors = [step["floor"] for result in results for step in result["steps"].values() if "floor" in step]
    if floors:
        mean, std = (float(np.mean([floor[key] for floor in floors])) for key in ("mean", "std"))
        text += f" Halves of the real clips are {mean:.3f} ± {std:.3f} apart: smaller differences say nothing."
    rows = [row for result in results for row in table_rows(result)]
    blocks: list[Table | Picture] = [
        Table(columns, lines),
        _retention(results, study.distill.sampling_steps),
        _differences(rows, study.distill.sampling_steps),
        *_curves(results),
        *_heads(results),
        plot,
    ]
    return Report(f"Study: {name}", lead, facts, [Section("Quality", text, blocks)])


def _plot(groups: Sequence[Row], path: Path) -> None:
    """Samples right in all attributes, and their distance from real clips, against evaluations for a clip."""
    figure, both = panels(2, width=11)
    for axes, column in zip(both, (RIGHT, DISTANCE), strict=True):
        for members in grouped(groups, lambda group: group["arm"]):
            x = [group["evaluations"] for group in members]
            y, deviation = ([group[column.key][part] for group in members] for part in ("mean", "std"))
            axes.errorbar(x, y, deviation, marker="o", capsize=3, label=members[0]["arm"])
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("evaluations of the network for a clip")
        axes.set_ylabel(column.heading)
    both[-1].legend(frameon=False, ncols=2)
    save_figure(figure, path)
