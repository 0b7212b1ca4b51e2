"""What the study of step distillation shows: tables for programs, a plot and a page for people."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.report.blocks import Report, Section, Table
from mobile_video_jax.report.figures import save_figure
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.chain import TEACHER
from mobile_video_jax.studies.config import DistillationStudy
from mobile_video_jax.studies.distillation import ARMS, cells
from mobile_video_jax.studies.table import Row, grouped, shown, spread, write_tables

ATTRIBUTES = ("colour", "shape", "motion")
SHOWN = {
    "conv": "adversarial, convolutional head",
    "dit": "adversarial, transformer head",
    "kd": "distillation alone",
    "dmd": "distribution matching",
    "teacher": "teacher, guided",
    "teacher-4": "teacher, guided",
    "student": "student before, guided",
    "student-4": "student before, unguided",
}
FORMS = {
    **dict.fromkeys((*ATTRIBUTES, "all", "share"), "{:.1%}"),
    **{"distance": "{:.3f}", "motion_energy": "{:.2f}", "diversity": "{:.1f}"},
}


def write_distillation_study(name: str, study: DistillationStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json, quality.png and report.html; returns what a program wants first."""
    rows = [row for result in results for row in table_rows(result)]
    groups = summary(rows)
    write_tables(name, rows, groups, out)
    if rows:
        _plot(groups, out / "quality.png")
        write_report(out / "report.html", _page(name, study, results, groups))
    distilled = [group for group in groups if group["arm"] in ARMS and group["steps"] == study.distill.sampling_steps]
    best = max(distilled, key=lambda group: group["all"]["mean"], default=None)
    return {
        **{"out": str(out), "cells": len(cells(study)), "finished": len(results)},
        "best": best["arm"] if best else None,
    }


def table_rows(result: Row) -> list[Row]:
    """A row for each number of steps of a cell. `motion` is the attribute, `motion_energy` that over real clips'."""
    return [
        {"arm": result["arm"], "seed": result["seed"], "steps": int(steps)}
        | {key: judged[key] for key in ("evaluations", "distance", "diversity", "seconds_per_clip")}
        | {"motion_energy": judged["motion"], **judged["accuracy"]}
        for steps, judged in result["steps"].items()
    ]


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean and deviation over seeds of each arm at each number of steps; `share` is of the same seed's teacher's."""
    teachers = {row["seed"]: row["all"] for row in rows if row["arm"] == TEACHER}
    merged = []
    for members in grouped(rows, lambda row: (row["arm"], row["steps"])):
        shares = [row["all"] / teachers[row["seed"]] for row in members if teachers.get(row["seed"])]
        measured = [key for key in FORMS if key != "share"]
        merged.append(
            {key: members[0][key] for key in ("arm", "steps", "evaluations")}
            | {"seeds": len(members), "share": spread(shares)}
            | {key: spread([row[key] for row in members]) for key in (*measured, "seconds_per_clip")}
        )
    return merged


def _page(name: str, study: DistillationStudy, results: Sequence[Row], groups: Sequence[Row]) -> Report:
    facts = {
        "distillation": f"{study.distill.steps} steps of {study.distill.batch_size} clips",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "samples": f"{study.samples} held-out prompts a model; guided at {study.sampling.guidance:g}",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    lead = (
        "One student, cut out of its teacher and recovered, taught to draw in a few unguided steps in several ways at "
        "one budget of steps."
    )
    judge = "another seed's teacher" if len(study.seeds) > 1 else "the teacher, through which discriminators look"
    text = (
        "Mean, and deviation over seeds. Samples are read back by a classical detector; the kernel distance is to "
        f"held-out real clips, on features of {judge}; motion energy is relative to theirs; diversity is in "
        "grey levels."
    )
    columns = ["model", "steps", "evaluations", *ATTRIBUTES, "all right", "of the teacher's"]
    columns += ["kernel distance", "motion energy", "diversity"]
    lines = [
        [SHOWN[group["arm"]], group["steps"], group["evaluations"]]
        + [shown(group, key, form) for key, form in FORMS.items()]
        for group in groups
    ]
    return Report(f"Study: {name}", lead, facts, [Section("Quality", text, [Table(columns, lines)])])


def _plot(groups: Sequence[Row], path: Path) -> None:
    """Samples right in all attributes, and their distance from real clips, against evaluations for a clip."""
    figure = Figure(figsize=(11, 4), layout="constrained", dpi=150)
    panels = zip(figure.subplots(1, 2), (("all", "samples right in all"), ("distance", "kernel distance")), strict=True)
    for axes, (key, label) in panels:
        for members in grouped(groups, lambda group: group["arm"]):
            x = [group["evaluations"] for group in members]
            y, deviation = ([group[key][part] for group in members] for part in ("mean", "std"))
            axes.errorbar(x, y, deviation, marker="o", capsize=3, label=members[0]["arm"])
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("evaluations of the network for a clip")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    axes.legend(frameon=False, ncols=2)
    save_figure(figure, path)
