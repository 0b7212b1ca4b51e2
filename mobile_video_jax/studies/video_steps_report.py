"""Report of the study of a video U-Net's few steps: tables for programs, and a page for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.metrics.accuracy import ALL, chance, wilson_interval
from mobile_video_jax.metrics.interval import mean_score
from mobile_video_jax.report.blocks import Cell, Report, Section, Table
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.network_config import VideoStepsStudy
from mobile_video_jax.studies.pairs import difference, hits_by_arm
from mobile_video_jax.studies.table import Column, Row, grouped, write_tables
from mobile_video_jax.studies.video_steps import GUIDED, UNTOUCHED, cells

COLUMNS = (
    Column("right", "clips right"),
    Column("distance", "kernel distance", "{:.3f}"),
    Column("motion", "motion energy", "{:.2f}"),
    Column("loss", "held-out velocity loss", "{:.4f}"),
    Column("image_right", "images right"),
    Column("image_loss", "of images", "{:.4f}"),
)
# Pairs of arms: what fine-tuning, the discriminator, and images in it add.
PAIRS = (
    ("flow", UNTOUCHED),
    ("mixed", UNTOUCHED),
    ("mixed", "flow"),
    ("mixed", "longer"),
    ("clips", "flow"),
    ("mixed", "clips"),
    ("mixed", GUIDED),
)
MEASURED = ("distance", "loss")  # beside the shares right, in which pairs are compared


def write_video_steps_study(name: str, study: VideoStepsStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json and report.html; returns what a program wants first."""
    rows = [table_row(study, result) for result in results]
    groups = summary(rows)
    write_tables(name, rows, groups, out)
    facts = {
        "start": f"{study.dit.steps} steps of {study.dit.batch_size} images, then {study.video.steps} of clips and "
        f"images, {study.video.image_share:.0%} of the batches",
        "fine-tuning": f"{study.tune.steps} steps of {study.tune.batch_size} clips, or as many tokens of images",
        "samples": f"{study.samples} clips and {study.samples} images for held-out prompts; {GUIDED} in "
        f"{study.sampling.steps} steps at guidance {study.sampling.guidance:g}, others in {study.tune.sampling_steps} "
        "without",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    sections = [
        Section("Arms", f"Mean, and deviation over seeds. {_text(study)}", [_arms(groups)]),
        Section("In pairs", "The first less the second of one seed, with 95 % intervals.", [_pairs(results)]),
    ]
    lead = "A video U-Net in few unguided steps: as it was, and after flow matching with and without a discriminator."
    write_report(out / "report.html", Report(f"Study: {name}", lead, facts, sections))
    return {"out": str(out), "cells": len(cells(study)), "finished": len(results)}


def table_row(study: VideoStepsStudy, result: Row) -> Row:
    """A cell's figures. It is trained where more clips are right than by chance, with 95 % confidence."""
    same = ("arm", "seed", "steps", "parameters", "distance", "motion", "loss", "image_loss", "last_quarter")
    hits, images = result["hits"], result["image_hits"]
    low, _ = wilson_interval(float(np.mean(hits)), len(hits))
    return {key: result[key] for key in same} | {
        "right": float(np.mean(hits)),
        "image_right": float(np.mean(images)),
        "floor": result["floor"]["mean"],
        "trained": low > chance(study.world)[ALL],
    }


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean and deviation over seeds of each arm."""
    return [
        {"arm": members[0]["arm"], "steps": members[0]["steps"], "seeds": len(members)}
        | {column.key: column.spread(members) for column in COLUMNS}
        | {"last_quarter": float(np.mean([row["last_quarter"] for row in members]))}
        | {"trained": all(row["trained"] for row in members)}
        for members in grouped(rows, lambda row: row["arm"])
    ]


def differences(results: Sequence[Row]) -> list[Row]:
    """The mean over seeds of MEASURED in each of PAIRS, the first less the second, with its 95 % interval."""
    at, pairs = {(result["arm"], result["seed"]): result for result in results}, []
    for first, second in PAIRS:
        seeds = [seed for arm, seed in at if arm == first and (second, seed) in at]
        if seeds:
            scores = {
                key: mean_score(np.array([at[first, seed][key] - at[second, seed][key] for seed in seeds]))
                for key in MEASURED
            }
            pairs.append({"first": first, "second": second, "seeds": len(seeds), **scores})
    return pairs


def _text(study: VideoStepsStudy) -> str:
    return (
        f"{GUIDED} and {UNTOUCHED} are the network before. flow and longer have no discriminator, for as many steps "
        "and for as many FLOPs as mixed; clips has no images in its batches. An image is right in what it shows, "
        f"motion left out. Not trained: no more clips are right than by chance, {chance(study.world)[ALL]:.1%}, with "
        "95 % confidence. Distances are from held-out real clips, on features of another seed's video network."
    )


def _arms(groups: Sequence[Row]) -> Table:
    lines: list[list[Cell]] = [
        [
            group["arm"],
            group["steps"],
            *(column.text(group) for column in COLUMNS),
            "" if group["trained"] else "not trained",
        ]
        for group in groups
    ]
    gained = ", ".join(f"{group['last_quarter']:.4f}" for group in groups if group["arm"] == GUIDED)
    caption = f"The video networks' loss fell by {gained or '–'} in the last quarter of their training."
    return Table(["arm", "steps", *(column.heading for column in COLUMNS), ""], lines, caption)


def _pairs(results: Sequence[Row]) -> Table:
    clips, images = (hits_by_arm(results, key) for key in ("hits", "image_hits"))
    lines: list[list[Cell]] = []
    for pair in differences(results):
        names = (pair["first"], pair["second"])
        points = (difference(hits, *names) for hits in (clips, images))
        lines.append([" less ".join(names), pair["seeds"], *points, *(_score(pair[key]) for key in MEASURED)])
    columns = ["pair", "seeds", "points of clips right", "points of images right", "kernel distance", "loss"]
    return Table(columns, lines)


def _score(score: Any) -> str:
    return f"{score.value:+.4f}" + ("" if score.low is None else f" ({score.low:+.4f} to {score.high:+.4f})")
