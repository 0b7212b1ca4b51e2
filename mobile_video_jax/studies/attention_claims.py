"""Claims of the study of attention: the sandwich against random layouts, and all against full attention."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mobile_video_jax.metrics.interval import percentiles, resampled_means
from mobile_video_jax.studies.attention_layouts import FULL, RANDOM, SANDWICH
from mobile_video_jax.studies.pairs import difference, hits_by_arm
from mobile_video_jax.studies.table import Row, grouped

KEEP = 0.98  # share of full attention's right samples that a layout is to keep
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Kept:
    """An arm beside full attention: ratio of right samples with its 95 % interval over prompts, and of phone time."""

    arm: str
    ratio: float
    low: float
    high: float
    phone: float

    @property
    def verdict(self) -> str:
        """The answer to the question if the arm keeps KEEP of full attention's quality."""
        if self.low >= KEEP:
            return "yes"
        return "no" if self.high < KEEP else "not decided"


def kept(results: Sequence[Row]) -> list[Kept]:
    """Each arm beside full attention, of the seeds that have both; prompts are resampled for both alike."""
    hits = hits_by_arm(results, "hits")
    timed = grouped([row for row in results if "phone_milliseconds" in row], lambda row: row["arm"])
    times = {rows[0]["arm"]: float(np.mean([row["phone_milliseconds"] for row in rows])) for rows in timed}
    rows = []
    for arm in dict.fromkeys(arm for arm, _ in hits if arm != FULL and arm in times):
        seeds = [seed for name, seed in hits if name == arm and (FULL, seed) in hits]
        if seeds:
            one, full = (np.mean([hits[name, seed] for seed in seeds], axis=0) for name in (arm, FULL))
            means = (np.maximum(resampled_means(values, 0, RESAMPLES), 1e-9) for values in (one, full))
            low, high = percentiles(np.divide(*means))
            ratio = float(one.mean() / max(full.mean(), 1e-9))
            rows.append(Kept(arm, ratio, low, high, times[arm] / times[FULL]))
    return rows


@dataclasses.dataclass(frozen=True)
class Beside:
    """The sandwich less a random layout of its time: points of right samples, and the loss, of each seed in pairs."""

    arm: str
    right: str  # with its 95 % interval
    losses: tuple[float, ...]  # below 0 the sandwich's is the lower


def beside_random(results: Sequence[Row]) -> list[Beside]:
    """The sandwich beside each random layout."""
    hits = hits_by_arm(results, "hits")
    losses = {(row["arm"], row["seed"]): row["losses"][-1] for row in results if "losses" in row}
    rows = []
    for arm in dict.fromkeys(arm for arm, _ in hits if arm.startswith(RANDOM)):
        pairs = [
            losses[SANDWICH, seed] - loss
            for (name, seed), loss in losses.items()
            if name == arm and (SANDWICH, seed) in losses
        ]
        if pairs:
            rows.append(Beside(arm, difference(hits, SANDWICH, arm), tuple(pairs)))
    return rows
