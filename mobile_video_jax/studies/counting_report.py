"""Report of the study of counting: accuracy by the number asked for, and where plain sampling is wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.report.blocks import Report, Section, Table
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.clip_quality import DECODED
from mobile_video_jax.studies.counting import PLAIN, cells
from mobile_video_jax.studies.pairs import difference, hits_by_arm
from mobile_video_jax.studies.reward_config import CountingStudy
from mobile_video_jax.studies.table import Column, Row, grouped, write_tables

BEST = "count_best"  # the baseline at twice the evaluations
COUNT, WRONG_HALF = Column("count", "counts right"), Column("wrong_half", "right where plain is wrong")
MEASURED = (
    COUNT,
    WRONG_HALF,
    Column("spoilt", "wrong where plain is right"),
    Column("distance", "kernel distance", "{:.3f}"),
    Column("motion", "motion energy", "{:.2f}"),
    Column("evaluations", "evaluations a clip", "{:.0f}"),
    Column("seconds_per_clip", "seconds a clip", "{:.2f}"),
)


def write_counting_study(name: str, study: CountingStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json and report.html; returns what a program wants first."""
    rows, columns = table_rows(results), [*MEASURED, *_by_count(study)]
    groups = [
        {"arm": members[0]["arm"], "seeds": len(members), **{c.key: c.spread(members) for c in columns}}
        for members in grouped(rows, lambda row: row["arm"])
    ]
    write_tables(name, rows, groups, out)
    if rows:
        write_report(out / "report.html", _page(name, study, results, groups, columns))
    models = [group for group in groups if group["arm"] != DECODED]
    best = max(models, key=lambda group: group[COUNT.key]["mean"], default=None)
    return {"out": str(out), "cells": len(cells(study)), "finished": len(results), "best": best and best["arm"]}


def table_rows(results: Sequence[Row]) -> list[Row]:
    """A row for each cell. Clips are compared with plain sampling of the same seed, prompt and noise."""
    plain = {result["seed"]: np.array(result["right"], bool) for result in results if result["arm"] == PLAIN}
    return [_row(result, None if result["arm"] == DECODED else plain.get(result["seed"])) for result in results]


def _row(result: Row, plain: np.ndarray | None) -> Row:
    right, asked = np.array(result["right"], bool), np.array(result["asked"])
    row: dict[str, Any] = {key: result[key] for key in ("arm", "seed", "count", "distance", "motion")}
    row |= {key: result[key] for key in ("evaluations", "seconds_per_clip")}
    row |= {f"count_{number}": float(right[asked == number].mean()) for number in np.unique(asked).tolist()}
    if plain is not None:
        row["wrong_half"] = float(right[~plain].mean()) if not plain.all() else None
        row["spoilt"] = float(1 - right[plain].mean()) if plain.any() else None
    return row


def _by_count(study: CountingStudy) -> list[Column]:
    return [Column(f"count_{number}", f"of {number}") for number in study.world.counts]


def _page(
    name: str, study: CountingStudy, results: Sequence[Row], groups: Sequence[Row], columns: Sequence[Column]
) -> Report:
    facts = {
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "samples": f"{study.samples} held-out prompts a cell, {study.sampling.steps} steps",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    floors = [result["floor"] for result in results]
    mean, std = (float(np.mean([floor[key] for floor in floors])) for key in ("mean", "std"))
    text = (
        "Counts are read by a rule-based detector, which no guide knows. A gradient is three evaluations. Decoded are "
        "held-out real clips after the VAE, the best that samples can be; again is plain sampling from other noise, "
        f"which is right by chance where the first is wrong. Halves of the real clips are {mean:.3f} ± {std:.3f} apart."
    )
    lines = [[group["arm"], *(column.text(group) for column in columns)] for group in groups]
    table = Table(["sampling", *(column.heading for column in columns)], lines)
    lead = "One transformer of each seed, guided to the number of objects that a prompt names while it samples."
    return Report(f"Study: {name}", lead, facts, [Section("Counts", text, [table, _gains(results)])])


def gains(results: Sequence[Row]) -> list[list[str]]:
    """Points of counts right of each way of sampling less plain sampling's, and less those of the best of two clips."""
    hits = hits_by_arm(results, "right")
    arms = dict.fromkeys(arm for arm, _ in hits if arm not in (DECODED, PLAIN))
    return [[arm, difference(hits, arm, PLAIN), "" if arm == BEST else difference(hits, arm, BEST)] for arm in arms]


def _gains(results: Sequence[Row]) -> Table:
    caption = (
        "Points of counts right for the same prompts, with 95 % intervals over seeds, or over prompts of one seed."
    )
    return Table(["sampling", "less plain", "less the best of two"], gains(results), caption)
