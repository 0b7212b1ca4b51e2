"""Report of the study of SnapGen++'s ladder: tables for programs, and a page for people."""

from collections.abc import Sequence
from pathlib import Path

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.cost.phone.table import PHONE
from mobile_video_jax.metrics.accuracy import ALL, chance
from mobile_video_jax.report.blocks import Report, Section
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.ladder import cells
from mobile_video_jax.studies.network_config import LadderStudy
from mobile_video_jax.studies.table import Row, write_tables
from mobile_video_jax.studies.trained import COLUMNS, PAIRS, arms_table, pairs_table, summary

# Arms whose loss is claimed to be below the other's, or not above it.
CLAIMS = (
    ("stages", "base"),
    ("assa", "stages"),
    ("enhanced", "assa"),
    ("enhanced", "base"),
    ("enhanced", "shallow"),
)
HEADINGS = {
    "arm": "arm",
    "blocks": "blocks",
    "parameters": "parameters",
    "step_flops": "FLOPs a step",
    "phone_parameters": "parameters at the phone's size",
    "phone_milliseconds": "phone, ms",
}


def write_ladder_study(name: str, study: LadderStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json and report.html; returns what a program wants first."""
    keys = (*HEADINGS, "seed", *(column.key for column in COLUMNS))
    rows = [{key: result[key] for key in keys} for result in results]
    groups = summary(rows, tuple(HEADINGS))
    write_tables(name, rows, groups, out)
    facts = {
        "training": f"{study.dit.steps} steps of {study.dit.batch_size} clips of each network",
        "phone": f"one call at {study.phone.clip}, estimated for an {PHONE}",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    lead = "From a plain transformer to three stages of sparse attention, each arm with what those before it have."
    text = (
        "Mean, and deviation over seeds. All take the same steps; shallow is the base with as many blocks as cost what "
        f"the enhanced network does. Chance has {chance(study.world)[ALL]:.1%} of the samples right."
    )
    sections = [
        Section("Arms", text, [arms_table(groups, HEADINGS)]),
        Section("In pairs", PAIRS, [pairs_table(results, CLAIMS)]),
    ]
    write_report(out / "report.html", Report(f"Study: {name}", lead, facts, sections))
    return {"out": str(out), "cells": len(cells(study)), "finished": len(results)}
