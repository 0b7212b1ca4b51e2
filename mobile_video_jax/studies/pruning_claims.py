"""Claims of the study of pruning: scored units against random draws, and arms against each other in pairs."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from mobile_video_jax.metrics.interval import mean_score
from mobile_video_jax.studies.table import Row

RANDOM = "random"
# Arms whose difference is claimed to be below 0: the first, less the second.
PAIRS = (("tri-level", "block"), ("cross-level", "block"), ("cross-level", "tri-level"))


@dataclasses.dataclass(frozen=True)
class AgainstDraws:
    """An arm's first repeat beside the random draws of its budget, after a share of the teacher's steps."""

    arm: str
    kept: float
    share: float
    loss: float
    least_draw: float
    mean_draw: float
    draws: int
    below: int  # draws whose loss is greater

    @property
    def p(self) -> float:
        """The probability of so low a rank, or a lower one, if the arm's choice were a draw as the others."""
        return (1 + self.draws - self.below) / (1 + self.draws)


@dataclasses.dataclass(frozen=True)
class Difference:
    """The mean over repeats of one arm's loss less another's, with its 95 % interval (None for one repeat)."""

    first: str
    second: str
    kept: float
    share: float
    mean: float
    low: float | None
    high: float | None
    repeats: int


def against_draws(rows: Sequence[Row]) -> list[AgainstDraws]:
    """Every arm that chooses units, at each budget and point of recovery."""
    beside = []
    for kept, share, at in _points(rows):
        draws = [row["loss"] for row in at if row["arm"] == RANDOM]
        others = [row for row in at if row["arm"] != RANDOM and row["repeat"] == 0] if draws else []
        for row in others:
            below = sum(row["loss"] < draw for draw in draws)
            beside.append(
                AgainstDraws(
                    arm=row["arm"],
                    kept=kept,
                    share=share,
                    loss=row["loss"],
                    least_draw=min(draws),
                    mean_draw=float(np.mean(draws)),
                    draws=len(draws),
                    below=below,
                )
            )
    return beside


def differences(rows: Sequence[Row]) -> list[Difference]:
    """PAIRS at each budget and point of recovery, over the seeds and repeats that both arms have."""
    compared = []
    for kept, share, at in _points(rows):
        losses = {(row["arm"], row["seed"], row["repeat"]): row["loss"] for row in at}
        for first, second in PAIRS:
            both = [key[1:] for key in losses if key[0] == first and (second, *key[1:]) in losses]
            if both:
                score = mean_score(np.array([losses[first, *key] - losses[second, *key] for key in both]))
                compared.append(Difference(first, second, kept, share, score.value, score.low, score.high, score.n))
    return compared


def _points(rows: Sequence[Row]) -> Iterator[tuple[float, float, list[Row]]]:
    """The rows of each budget and share of the teacher's steps."""
    keys = sorted({(row["kept"], row["share"]) for row in rows if row["kept"] < 1})
    for kept, share in keys:
        yield kept, share, [row for row in rows if (row["kept"], row["share"]) == (kept, share)]
