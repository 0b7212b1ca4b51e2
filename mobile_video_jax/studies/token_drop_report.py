"""Report of the study of training on some of the tokens: tables for programs, and a page for people."""

from collections.abc import Sequence
from pathlib import Path

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.metrics.accuracy import ALL, chance
from mobile_video_jax.report.blocks import Report, Section
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.network_config import TokenDropStudy
from mobile_video_jax.studies.table import Column, Row, write_tables
from mobile_video_jax.studies.token_drop import PLAIN, cells
from mobile_video_jax.studies.trained import COLUMNS, PAIRS, arms_table, pairs_table, summary

# Arms whose loss is claimed to be below the other's: at equal FLOPs, and at half of them.
CLAIMS = (
    ("plain-half", PLAIN),
    ("bypass", PLAIN),
    ("fusion", PLAIN),
    ("fusion", "bypass"),
    ("bypass-half", "plain-half"),
    ("fusion-half", "plain-half"),
    ("fusion-half", "bypass-half"),
    ("bypass-half", PLAIN),
    ("fusion-half", PLAIN),
)
HEADINGS = {"arm": "arm", "parameters": "parameters", "steps": "steps", "train_flops": "FLOPs of training"}
BY_PATH = Column("right_by_path", "samples right, guided by the dropped path")


def write_token_drop_study(name: str, study: TokenDropStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json and report.html; returns what a program wants first."""
    columns = (*COLUMNS, BY_PATH)
    keys = (*HEADINGS, "seed", *(column.key for column in columns))
    rows = [{key: result[key] for key in keys} for result in results]
    groups = summary(rows, tuple(HEADINGS), columns)
    write_tables(name, rows, groups, out)
    facts = {
        "training": f"{study.dit.steps} plain steps of {study.dit.batch_size} clips, or as many as cost the same",
        "dropped": f"{study.token_drop:.0%} of the tokens for {1 - study.whole:.0%} of an arm's FLOPs, then none",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    lead = "Training on some of the tokens, with the rest past the middle blocks, beside training on all."
    text = (
        "Mean, and deviation over seeds. Arms named half have half of the FLOPs. All are sampled with guidance by the "
        f"empty caption, in the last column by the dropped path. {chance(study.world)[ALL]:.1%} are right by chance."
    )
    sections = [
        Section("Arms", text, [arms_table(groups, HEADINGS, columns)]),
        Section("In pairs", PAIRS, [pairs_table(results, CLAIMS)]),
    ]
    write_report(out / "report.html", Report(f"Study: {name}", lead, facts, sections))
    return {"out": str(out), "cells": len(cells(study)), "finished": len(results)}
