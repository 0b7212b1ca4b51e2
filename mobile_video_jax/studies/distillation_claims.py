"""Claims of the study of distillation: arms against each other in pairs, and against their guided teacher."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from mobile_video_jax.metrics.interval import mean_score, percentiles, resampled_means
from mobile_video_jax.studies.chain import TEACHER
from mobile_video_jax.studies.table import Column, Row, grouped

RIGHT, DISTANCE = Column("all", "samples right in all"), Column("distance", "kernel distance", "{:.3f}")
KEEP = 0.95  # share of the guided teacher's right samples that a few-step student is to keep
RESAMPLES = 2000
# Arms that are compared in pairs: the first, less the second.
PAIRS = (
    *(("dit", "conv"), ("mismatched", "dit"), ("taps", "dit")),
    *((arm, "kd") for arm in ("dit", "conv", "renoise", "renoise-dit", "dmd", "dmd2", "scm", "kdmd")),
    *(("kdmd", arm) for arm in ("renoise", "dmd2")),
)


@dataclasses.dataclass(frozen=True)
class Retention:
    """The ratio of an arm's right samples to its guided teacher's, with its 95 % interval over prompts."""

    arm: str
    cells: int
    right: float  # share of samples right in all
    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """The answer to the question if the student keeps KEEP of its teacher."""
        if self.low >= KEEP:
            return "yes"
        return "no" if self.high < KEEP else "not decided"


def retention(results: Sequence[Row], steps: int) -> list[Retention]:
    """Each model at `steps` steps beside its seed's teacher in all its own.

    Prompts are resampled, for both alike: the interval is that of other prompts, not of other trainings.
    """
    teachers = {row["seed"]: _hits(next(iter(row["steps"].values()))) for row in results if row["arm"] == TEACHER}
    sampled = [
        row for row in results if row["arm"] != TEACHER and str(steps) in row["steps"] and row["seed"] in teachers
    ]
    retained = []
    for members in grouped(sampled, lambda row: row["arm"]):
        student = np.mean([_hits(row["steps"][str(steps)]) for row in members], axis=0)
        teacher = np.mean([teachers[row["seed"]] for row in members], axis=0)
        # One seed: the same prompts are in each sample of both.
        means = (np.maximum(resampled_means(hits, 0, RESAMPLES), 1e-9) for hits in (student, teacher))
        low, high = percentiles(np.divide(*means))
        right, ratio = float(student.mean()), float(student.mean() / max(teacher.mean(), 1e-9))
        retained.append(Retention(members[0]["arm"], len(members), right, ratio, low, high))
    return retained


def differences(rows: Sequence[Row], steps: int) -> list[Row]:
    """PAIRS in samples right and in distance at `steps` steps: mean over seeds and repeats, with its 95 % interval."""
    compared = []
    at = {(row["arm"], row["seed"], row["repeat"]): row for row in rows if row["steps"] == steps}
    for first, second in PAIRS:
        pairs = [(at[key], at[second, *key[1:]]) for key in at if key[0] == first and (second, *key[1:]) in at]
        if pairs:
            scores = {
                column.key: mean_score(np.array([one[column.key] - other[column.key] for one, other in pairs]))
                for column in (RIGHT, DISTANCE)
            }
            compared.append({"first": first, "second": second, **{k: dataclasses.asdict(v) for k, v in scores.items()}})
    return compared


def _hits(quality: Row) -> Float64[np.ndarray, "n"]:
    """1 for each prompt whose sample is right, else 0."""
    return np.array([float(hit) for hit in quality["hits"]])
