"""Report of the study of SnapGen's distillation: tables for programs, and a page for people."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.metrics.accuracy import ALL, chance
from mobile_video_jax.metrics.interval import mean_score
from mobile_video_jax.report.blocks import Report, Section, Table
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.architectures import cells
from mobile_video_jax.studies.config import ArchitectureStudy
from mobile_video_jax.studies.pairs import difference, hits_by_arm
from mobile_video_jax.studies.table import Column, Row, grouped, write_tables

COLUMNS = (
    Column("loss", "held-out velocity loss", "{:.4f}"),
    Column("last_quarter", "loss lost in the last quarter", "{:.4f}"),
    Column("right", "samples right"),
)
PAIRS = "Differences of loss and of samples right in pairs of one seed: a loss below 0 and points above 0 are better."
# Arms whose loss is claimed to be below the other's.
CLAIMS = (
    ("output", "task"),
    ("output", "longer"),
    ("scaling", "output"),
    ("scaling", "constant"),
    ("features", "scaling"),
)


def write_architecture_study(name: str, study: ArchitectureStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json and report.html; returns what a program wants first."""
    keys = ("arm", "seed", "steps", "parameters", *(column.key for column in COLUMNS))
    rows = [{key: result[key] for key in keys} for result in results]
    groups = summary(rows)
    write_tables(name, rows, groups, out)
    facts = {
        "student": f"{study.student.steps} steps of {study.student.batch_size} images",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    lead = "A U-Net taught by a transformer on the same latents of images, with more of SnapGen's loss from arm to arm."
    sections = [
        Section("Arms", f"Mean, and deviation over seeds. {_text(study)}", [_arms(groups)]),
        Section("In pairs", PAIRS, [_pairs(rows, results)]),
    ]
    write_report(out / "report.html", Report(f"Study: {name}", lead, facts, sections))
    return {"out": str(out), "cells": len(cells(study)), "finished": len(results)}


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean and deviation over seeds of each arm."""
    return [
        {key: members[0][key] for key in ("arm", "steps", "parameters")}
        | {"seeds": len(members)}
        | {column.key: column.spread(members) for column in COLUMNS}
        for members in grouped(rows, lambda row: row["arm"])
    ]


def differences(rows: Sequence[Row]) -> list[Row]:
    """The mean over seeds of one arm's loss less another's, for CLAIMS, with the ends of its 95 % interval."""
    losses = {(row["arm"], row["seed"]): row["loss"] for row in rows}
    pairs = []
    for first, second in CLAIMS:
        seeds = [seed for arm, seed in losses if arm == first and (second, seed) in losses]
        if seeds:
            score = mean_score(np.array([losses[first, seed] - losses[second, seed] for seed in seeds]))
            low, high = (score.low, score.high) if len(seeds) > 1 else (None, None)
            pairs.append({"first": first, "second": second, "mean": score.value, "low": low, "high": high})
    return pairs


def _text(study: ArchitectureStudy) -> str:
    return (
        "All students take the same steps, but longer, which takes as many as cost what those with a teacher do. Loss "
        "that still falls in the last quarter tells how far training went. Chance has "
        f"{chance(study.world)[ALL]:.1%} of the samples right."
    )


def _arms(groups: Sequence[Row]) -> Table:
    lines = [
        [group["arm"], group["steps"], group["parameters"], *(column.text(group) for column in COLUMNS)]
        for group in groups
    ]
    return Table(["arm", "steps", "parameters", *(column.heading for column in COLUMNS)], lines)


def _pairs(rows: Sequence[Row], results: Sequence[Row]) -> Table:
    lines, hits = [], hits_by_arm(results, "hits")
    for pair in differences(rows):
        interval = "–" if pair["low"] is None else f"{pair['low']:+.4f} to {pair['high']:+.4f}"
        right = difference(hits, pair["first"], pair["second"])
        lines.append([f"{pair['first']} less {pair['second']}", f"{pair['mean']:+.4f}", interval, right])
    return Table(["pair", "difference of loss", "95 % interval over seeds", "points of samples right"], lines)
