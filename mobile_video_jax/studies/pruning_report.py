"""What the study of pruning shows: tables for programs, a plot and a page for people."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.report.blocks import Report, Section, Table
from mobile_video_jax.report.figures import save_figure
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.chain import TEACHER
from mobile_video_jax.studies.config import PruningStudy
from mobile_video_jax.studies.pruning import cells
from mobile_video_jax.studies.table import Row, grouped, shown, spread, write_tables

ATTRIBUTES = ("colour", "shape", "motion")


def write_pruning_study(name: str, study: PruningStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json, quality.png and report.html; returns what a program wants first."""
    rows = [row for result in results for row in table_rows(result)]
    groups = summary(rows)
    write_tables(name, rows, groups, out)
    if rows:
        _plot(groups, out / "quality.png")
        write_report(out / "report.html", _page(name, study, results, groups))
    pruned = [group for group in groups if group["arm"] != TEACHER]
    best = max(pruned, key=lambda group: group["all"]["mean"], default=None)
    found = f"{best['arm']} {best['training']}" if best else None
    return {"out": str(out), "cells": len(cells(study)), "finished": len(results), "best": found}


def table_rows(result: Row) -> list[Row]:
    """A row for each training of a cell; losses before recovery are the same in both."""
    return [
        {
            **{key: result[key] for key in ("arm", "seed")},
            "training": training,
            "parameters": judged["parameters"],
            **{key: judged["sizes"][key] for key in ("blocks", "heads", "cross_heads", "ffn")},
            "kd_loss": result.get("kd_loss"),
            "loss_before": result.get("before"),
            "loss": judged["eval_loss"],
            **judged["accuracy"],
        }
        for training, judged in result["trained"].items()
    ]


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean and deviation over seeds of each arm and training, and `share`: of the teacher's samples right in all.

    Shares are of the same seed's teacher, so that a lucky teacher helps none.
    """
    teachers = {row["seed"]: row["all"] for row in rows if row["arm"] == TEACHER}
    merged = []
    for members in grouped(rows, lambda row: (row["arm"], row["training"])):
        shares = [row["all"] / teachers[row["seed"]] for row in members if teachers.get(row["seed"])]
        merged.append(
            {key: members[0][key] for key in ("arm", "training", "parameters", "blocks", "heads", "cross_heads", "ffn")}
            | {"seeds": len(members), "share": spread(shares)}
            | {key: spread([row[key] for row in members]) for key in ("loss_before", "loss", *ATTRIBUTES, "all")}
        )
    return merged


def _page(name: str, study: PruningStudy, results: Sequence[Row], groups: Sequence[Row]) -> Report:
    facts = {
        "teacher": f"{study.dit.model.depth} blocks of width {study.dit.model.width}, {study.dit.steps} steps",
        "recovery": f"{study.recover.steps} steps of {study.recover.batch_size} clips",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "samples": f"{study.samples} held-out prompts a model, {study.sampling.steps} {study.sampling.solver} steps at "
        f"guidance {study.sampling.guidance:g}",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    lead = (
        "One transformer cut down to one budget of parameters in several ways, each then trained alike, with "
        "distillation from the transformer before (kd) and without (plain)."
    )
    text = "Mean, and deviation over seeds; samples are read back by a classical detector."
    return Report(f"Study: {name}", lead, facts, [Section("Quality", text, [_table(groups)])])


def _table(groups: Sequence[Row]) -> Table:
    whole = next((group["parameters"] for group in groups if group["arm"] == TEACHER), groups[0]["parameters"])
    columns = ["way", "training", "parameters", "of all", "blocks", "heads", "FFN", "loss before", "loss"]
    columns += [*ATTRIBUTES, "all right", "of the teacher's"]
    rows = [
        [
            *(group["arm"], group["training"], group["parameters"], f"{group['parameters'] / whole:.2f}"),
            *(group[key] for key in ("blocks", "heads", "ffn")),
            *(shown(group, key, "{:.4f}") for key in ("loss_before", "loss")),
            *(shown(group, key, "{:.1%}") for key in (*ATTRIBUTES, "all", "share")),
        ]
        for group in sorted(groups, key=lambda group: -(group["all"]["mean"]))
    ]
    caption = "Heads and FFN channels of a block are means where blocks differ."
    return Table(columns, rows, caption)


def _plot(groups: Sequence[Row], path: Path) -> None:
    """Samples right in all attributes and held-out loss of every way, best at the top."""
    ordered = sorted(groups, key=lambda group: group["all"]["mean"])
    names = [f"{group['arm']}, {group['training']}" for group in ordered]
    figure = Figure(figsize=(10, 1 + 0.3 * len(ordered)), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key, label in ((left, "all", "samples right in all"), (right, "loss", "held-out velocity loss")):
        means, stds = ([group[key][part] for group in ordered] for part in ("mean", "std"))
        axes.barh(names, means, xerr=stds, color="#56B4E9", ecolor="#333333")
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.3)
    save_figure(figure, path)
