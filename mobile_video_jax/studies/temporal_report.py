"""Report of the study of layers over time: tables for programs, and a page for people."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.metrics.accuracy import ALL, chance
from mobile_video_jax.metrics.interval import mean_score
from mobile_video_jax.report.blocks import Report, Section, Table
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.network_config import TemporalStudy
from mobile_video_jax.studies.pairs import difference, hits_by_arm
from mobile_video_jax.studies.table import Column, Row, grouped, write_tables
from mobile_video_jax.studies.temporal import SEARCH, cells

COLUMNS = (
    Column("milliseconds", "ms a call, estimated", "{:.3f}"),
    Column("loss", "held-out velocity loss", "{:.4f}"),
    Column("right", "samples right"),
)
LEAD = "One image network as a video network: layers over time that were searched for, and others of the same time."
PAIRS = "The search less each other arm, in pairs of one seed: a loss below 0 and points above 0 are better."


def write_temporal_study(name: str, study: TemporalStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json and report.html; returns what a program wants first."""
    keys = ("arm", "seed", "parameters", "layers", *(column.key for column in COLUMNS))
    rows = [{key: result[key] for key in keys} for result in results]
    groups = summary(rows)
    write_tables(name, rows, groups, out)
    facts = {
        "training": f"{study.video.steps} steps of {study.video.batch_size} clips of {study.video.clip} for each arm",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    sections = [
        Section("Arms", f"Mean, and deviation over seeds. {_text(study)}", [_arms(groups)]),
        Section("In pairs", PAIRS, [_pairs(rows, results)]),
        Section("Layers", "A kind for each place, in the network's order.", [_layers(rows)]),
        Section("Search", "Rank correlations of losses early and at the last fidelity.", [_searches(results)]),
    ]
    write_report(out / "report.html", Report(f"Study: {name}", LEAD, facts, sections))
    return {"out": str(out), "cells": len(cells(study)), "finished": len(results)}


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean and deviation over seeds of each arm."""
    return [
        {"arm": members[0]["arm"], "seeds": len(members)} | {column.key: column.spread(members) for column in COLUMNS}
        for members in grouped(rows, lambda row: row["arm"])
    ]


def differences(rows: Sequence[Row]) -> list[Row]:
    """The mean over seeds of the search's loss less each other arm's, with the ends of its 95 % interval."""
    losses = {(row["arm"], row["seed"]): row["loss"] for row in rows}
    pairs = []
    for other in dict.fromkeys(row["arm"] for row in rows if row["arm"] != SEARCH):
        seeds = [seed for arm, seed in losses if arm == other and (SEARCH, seed) in losses]
        if seeds:
            score = mean_score(np.array([losses[SEARCH, seed] - losses[other, seed] for seed in seeds]))
            low, high = (score.low, score.high) if len(seeds) > 1 else (None, None)
            pairs.append({"other": other, "mean": score.value, "low": low, "high": high})
    return pairs


def _text(study: TemporalStudy) -> str:
    return (
        "A call of all arms takes at most the same time, but for none, which has no layers over time: there the image "
        "network itself is trained on the clips, for as many steps. Other names are layers of one kind, from the "
        "lowest resolution on; random is the best of as many evaluations as the search's. Chance has "
        f"{chance(study.world)[ALL]:.1%} of the samples right."
    )


def _arms(groups: Sequence[Row]) -> Table:
    lines = [[group["arm"], *(column.text(group) for column in COLUMNS)] for group in groups]
    return Table(["arm", *(column.heading for column in COLUMNS)], lines)


def _pairs(rows: Sequence[Row], results: Sequence[Row]) -> Table:
    lines, hits = [], hits_by_arm(results, "hits")
    for pair in differences(rows):
        interval = "–" if pair["low"] is None else f"{pair['low']:+.4f} to {pair['high']:+.4f}"
        right = difference(hits, SEARCH, pair["other"])
        lines.append([f"{SEARCH} less {pair['other']}", f"{pair['mean']:+.4f}", interval, right])
    return Table(["pair", "difference of loss", "95 % interval over seeds", "points of samples right"], lines)


def _layers(rows: Sequence[Row]) -> Table:
    return Table(["arm", "seed", "layers"], [[row["arm"], row["seed"], row["layers"]] for row in rows])


def _searches(results: Sequence[Row]) -> Table:
    lines = []
    for result in results:
        if result["arm"] == SEARCH:
            ranks = ", ".join(f"{rank:.2f} after {at} steps" for at, rank in result["rank_correlation"].items()) or "–"
            lines.append([result["seed"], result["evaluations"], ranks, f"{result['seconds']:.0f}"])
    return Table(["seed", "evaluations", "rank correlation with the last fidelity", "seconds"], lines)
