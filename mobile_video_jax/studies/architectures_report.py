"""Report of the study of SnapGen's distillation: tables for programs, and a page for people."""

from collections.abc import Sequence
from pathlib import Path

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.metrics.accuracy import ALL, chance
from mobile_video_jax.report.blocks import Report, Section
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.architectures import cells
from mobile_video_jax.studies.shrinking_config import ArchitectureStudy
from mobile_video_jax.studies.table import Row, write_tables
from mobile_video_jax.studies.trained import COLUMNS, PAIRS, arms_table, pairs_table, summary

# Arms whose loss is claimed to be below the other's.
CLAIMS = (
    ("output", "task"),
    ("output", "longer"),
    ("scaling", "output"),
    ("scaling", "constant"),
    ("features", "scaling"),
)
HEADINGS = {"arm": "arm", "steps": "steps", "parameters": "parameters"}


def write_architecture_study(name: str, study: ArchitectureStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json and report.html; returns what a program wants first."""
    keys = ("arm", "seed", "steps", "parameters", *(column.key for column in COLUMNS))
    rows = [{key: result[key] for key in keys} for result in results]
    groups = summary(rows, tuple(HEADINGS))
    write_tables(name, rows, groups, out)
    facts = {
        "student": f"{study.student.steps} steps of {study.student.batch_size} images",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    lead = "A U-Net taught by a transformer on the same latents of images, with more of SnapGen's loss from arm to arm."
    sections = [
        Section("Arms", f"Mean, and deviation over seeds. {_text(study)}", [arms_table(groups, HEADINGS)]),
        Section("In pairs", PAIRS, [pairs_table(results, CLAIMS)]),
    ]
    write_report(out / "report.html", Report(f"Study: {name}", lead, facts, sections))
    return {"out": str(out), "cells": len(cells(study)), "finished": len(results)}


def _text(study: ArchitectureStudy) -> str:
    return (
        "All students take the same steps, but longer, which takes as many as cost what those with a teacher do. Loss "
        "that still falls in the last quarter tells how far training went. Chance has "
        f"{chance(study.world)[ALL]:.1%} of the samples right."
    )
