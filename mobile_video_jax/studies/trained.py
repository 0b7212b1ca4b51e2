"""What studies of whole trainings measure of each network, and the tables of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.evaluate.alignment import generate_samples
from mobile_video_jax.metrics.accuracy import ALL, attributes_right
from mobile_video_jax.metrics.interval import mean_score
from mobile_video_jax.models.run import Run
from mobile_video_jax.report.blocks import Table
from mobile_video_jax.studies.config import ChainStudy
from mobile_video_jax.studies.pairs import difference, hits_by_arm
from mobile_video_jax.studies.table import Column, Row, grouped
from mobile_video_jax.train.metrics import read_metrics

COLUMNS = (
    Column("loss", "held-out velocity loss", "{:.4f}"),
    Column("last_quarter", "loss lost in the last quarter", "{:.4f}"),
    Column("right", "samples right"),
)
PAIRS = "Differences of loss and of samples right in pairs of one seed: a loss below 0 and points above 0 are better."
# Pairs of arms, of which the loss of the first is claimed to be below the second's.
Claims = Sequence[tuple[str, str]]


def measured(study: ChainStudy, run: Path) -> dict[str, Any]:
    """Held-out loss of a training that measured it four times or a multiple, and its samples read back.

    `hits` has a 1 for each sample that is right in all attributes, else a 0.
    """
    losses = [line["eval_loss"] for line in read_metrics(run) if "eval_loss" in line]
    samples = generate_samples(run, study.world, study.samples, study.sampling)
    hits = [int(attributes_right(study.world, *pair)[ALL]) for pair in samples.pairs]
    return {
        "parameters": Run.open(run).denoiser.describe()["parameters"],
        "loss": losses[-1],
        "last_quarter": losses[-1 - max(1, len(losses) // 4)] - losses[-1],
        "right": sum(hits) / len(hits),
        "hits": hits,
    }


def summary(rows: Sequence[Row], keys: Sequence[str], columns: Sequence[Column] = COLUMNS) -> list[Row]:
    """Mean and deviation over seeds of each arm, and `keys` as its first row has them."""
    return [
        {key: members[0][key] for key in keys}
        | {"seeds": len(members)}
        | {column.key: column.spread(members) for column in columns}
        for members in grouped(rows, lambda row: row["arm"])
    ]


def differences(rows: Sequence[Row], claims: Claims) -> list[Row]:
    """The mean over seeds of the first arm's loss less the second's, with the ends of its 95 % interval."""
    losses = {(row["arm"], row["seed"]): row["loss"] for row in rows}
    pairs = []
    for first, second in claims:
        seeds = [seed for arm, seed in losses if arm == first and (second, seed) in losses]
        if seeds:
            score = mean_score(np.array([losses[first, seed] - losses[second, seed] for seed in seeds]))
            low, high = (score.low, score.high) if len(seeds) > 1 else (None, None)
            pairs.append({"first": first, "second": second, "mean": score.value, "low": low, "high": high})
    return pairs


def arms_table(groups: Sequence[Row], headings: dict[str, str], columns: Sequence[Column] = COLUMNS) -> Table:
    """A line for each arm: its values of the keys of `headings`, then what was measured."""
    lines = [[*(group[key] for key in headings), *(column.text(group) for column in columns)] for group in groups]
    return Table([*headings.values(), *(column.heading for column in columns)], lines)


def pairs_table(results: Sequence[Row], claims: Claims) -> Table:
    """A line for each claim: the difference of loss and of samples right, of one seed over prompts."""
    lines, hits = [], hits_by_arm(results, "hits")
    for pair in differences(results, claims):
        interval = "–" if pair["low"] is None else f"{pair['low']:+.4f} to {pair['high']:+.4f}"
        right = difference(hits, pair["first"], pair["second"])
        lines.append([f"{pair['first']} less {pair['second']}", f"{pair['mean']:+.4f}", interval, right])
    return Table(["pair", "difference of loss", "95 % interval over seeds", "points of samples right"], lines)
