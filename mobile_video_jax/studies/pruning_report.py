"""Report of the study of pruning: tables for programs, a plot and a page for people."""

from collections.abc import Sequence
from pathlib import Path

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.report.blocks import Picture, Report, Section, Table
from mobile_video_jax.report.figures import panels, save_figure
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.chain import TEACHER
from mobile_video_jax.studies.config import PruningStudy
from mobile_video_jax.studies.pruning import cells
from mobile_video_jax.studies.table import Column, Row, grouped, spread, write_tables

LOSS, RIGHT = Column("loss", "held-out velocity loss", "{:.4f}"), Column("all", "samples right in all")
MEASURED = (
    Column("loss_before", "loss before recovery", "{:.4f}"),
    LOSS,
    Column("colour", "colour"),
    Column("shape", "shape"),
    Column("motion", "motion"),
    RIGHT,
)
SHARE = Column("share", "of the teacher's")  # of the samples that its seed's teacher has right in all
SIZES = ("parameters", "blocks", "heads", "cross_heads", "ffn")
PLOT = "quality.png"


def write_pruning_study(name: str, study: PruningStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json, quality.png and report.html; returns what a program wants first."""
    rows = [row for result in results for row in table_rows(result)]
    groups = summary(rows)
    write_tables(name, rows, groups, out)
    if rows:
        _plot(groups, out / PLOT)
        write_report(out / "report.html", _page(name, study, results, groups, out))
    pruned = [group for group in groups if group["arm"] != TEACHER]
    best = max(pruned, key=lambda group: group[RIGHT.key]["mean"], default=None)
    label = f"{best['arm']} {best['training']}" if best else None
    return {"out": str(out), "cells": len(cells(study)), "finished": len(results), "best": label}


def table_rows(result: Row) -> list[Row]:
    """A row for each training of a cell; losses before recovery are the same in both."""
    return [
        {
            **{key: result[key] for key in ("arm", "seed")},
            "training": training,
            "parameters": evaluated["parameters"],
            **{key: evaluated["sizes"][key] for key in ("blocks", "heads", "cross_heads", "ffn")},
            "kd_loss": result.get("kd_loss"),
            "loss_before": result.get("before"),
            "loss": evaluated["eval_loss"],
            **evaluated["accuracy"],
        }
        for training, evaluated in result["trained"].items()
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
            {key: members[0][key] for key in ("arm", "training", *SIZES)}
            | {"seeds": len(members), SHARE.key: spread(shares)}
            | {column.key: column.spread(members) for column in MEASURED}
        )
    return merged


def _page(name: str, study: PruningStudy, results: Sequence[Row], groups: Sequence[Row], out: Path) -> Report:
    sampling = study.sampling
    facts = {
        "teacher": f"{study.dit.model.depth} blocks of width {study.dit.model.width}, {study.dit.steps} steps",
        "recovery": f"{study.recover.steps} steps of {study.recover.batch_size} clips",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "samples": f"{study.samples} held-out prompts a model, {sampling.steps} {sampling.solver} steps at guidance "
        f"{sampling.guidance:g}",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    lead = (
        "One transformer pruned to one budget of parameters in several ways, each then trained alike, with "
        "distillation from the transformer before (kd) and without (plain)."
    )
    text = "Mean, and deviation over seeds; samples are read back by a rule-based detector."
    plot = Picture("Samples right in all attributes, and held-out loss, of every way.", out / PLOT)
    return Report(f"Study: {name}", lead, facts, [Section("Quality", text, [_table(groups), plot])])


def _table(groups: Sequence[Row]) -> Table:
    whole = next((group["parameters"] for group in groups if group["arm"] == TEACHER), groups[0]["parameters"])
    measured = (*MEASURED, SHARE)
    columns = ["way", "training", "parameters", "of all", "blocks", "heads", "FFN"]
    rows = [
        [group["arm"], group["training"], group["parameters"], f"{group['parameters'] / whole:.2f}"]
        + [group[key] for key in ("blocks", "heads", "ffn")]
        + [column.text(group) for column in measured]
        for group in sorted(groups, key=lambda group: -group[RIGHT.key]["mean"])
    ]
    caption = "Heads and FFN channels of a block are means where blocks differ."
    return Table([*columns, *(column.heading for column in measured)], rows, caption)


def _plot(groups: Sequence[Row], path: Path) -> None:
    """Samples right in all attributes and held-out loss of every way, best at the top."""
    ordered = sorted(groups, key=lambda group: group[RIGHT.key]["mean"])
    names = [f"{group['arm']}, {group['training']}" for group in ordered]
    figure, both = panels(2, width=10, height=1 + 0.3 * len(ordered), sharey=True)
    for axes, column in zip(both, (RIGHT, LOSS), strict=True):
        means, stds = ([group[column.key][part] for group in ordered] for part in ("mean", "std"))
        axes.barh(names, means, xerr=stds, color="#56B4E9", ecolor="#333333")
        axes.set_xlabel(column.heading)
    save_figure(figure, path)
