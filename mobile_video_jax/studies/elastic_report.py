"""Report of the study of elastic networks: tables for programs, and a page for people."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.metrics.interval import mean_score
from mobile_video_jax.report.blocks import Report, Section, Table
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.chain import TEACHER
from mobile_video_jax.studies.elastic import ALONE, cells
from mobile_video_jax.studies.network_config import ElasticStudy
from mobile_video_jax.studies.table import Column, Row, grouped, write_tables

COLUMNS = (Column("loss", "held-out velocity loss", "{:.4f}"), Column("right", "samples right"))


def write_elastic_study(name: str, study: ElasticStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json and report.html; returns what a program wants first."""
    rows = [
        {"arm": ALONE if result["arm"] == TEACHER else result["arm"], "seed": result["seed"], "width": width} | measured
        for result in results
        for width, measured in result["widths"].items()
    ]
    groups = summary(rows)
    write_tables(name, rows, groups, out)
    facts = {
        "training": f"{study.elastic.steps} steps of {study.elastic.batch_size} clips of each network",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    lead = "Widths of one elastic network, by how both networks' gradients are added, beside each width trained alone."
    sections = [
        Section("Widths", "In thousandths; mean, and deviation over seeds.", [_widths(groups)]),
        Section(
            "In pairs", "Loss less that of the width alone, in pairs of one seed; below 0 is better.", [_pairs(rows)]
        ),
    ]
    write_report(out / "report.html", Report(f"Study: {name}", lead, facts, sections))
    return {"out": str(out), "cells": len(cells(study)), "finished": len(results)}


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean and deviation over seeds of each arm's widths."""
    return [
        {key: members[0][key] for key in ("arm", "width", "parameters")}
        | {"seeds": len(members)}
        | {column.key: column.spread(members) for column in COLUMNS}
        for members in grouped(rows, lambda row: (row["width"], row["arm"]))
    ]


def differences(rows: Sequence[Row]) -> list[Row]:
    """Each arm's mean over seeds of the loss less that of the same width alone, with the ends of its 95 % interval."""
    losses = {(row["arm"], row["width"], row["seed"]): row["loss"] for row in rows}
    pairs = []
    for arm, width in dict.fromkeys((row["arm"], row["width"]) for row in rows if row["arm"] != ALONE):
        values = [
            loss - losses[ALONE, width, seed]
            for (one, other, seed), loss in losses.items()
            if (one, other) == (arm, width) and (ALONE, width, seed) in losses
        ]
        if values:
            score = mean_score(np.array(values))
            low, high = (score.low, score.high) if len(values) > 1 else (None, None)
            pairs.append({"arm": arm, "width": width, "mean": score.value, "low": low, "high": high})
    return pairs


def _widths(groups: Sequence[Row]) -> Table:
    keys = ("width", "arm", "parameters")
    lines = [[*(group[key] for key in keys), *(column.text(group) for column in COLUMNS)] for group in groups]
    return Table([*keys, *(column.heading for column in COLUMNS)], lines)


def _pairs(rows: Sequence[Row]) -> Table:
    lines = []
    for pair in differences(rows):
        interval = "–" if pair["low"] is None else f"{pair['low']:+.4f} to {pair['high']:+.4f}"
        lines.append([pair["width"], pair["arm"], f"{pair['mean']:+.4f}", interval])
    return Table(["width", "gradients", "difference of loss", "95 % interval"], lines)
