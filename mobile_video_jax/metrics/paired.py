"""The difference of two runs on the same clips or prompts, with its 95 % interval."""

import dataclasses

import numpy as np
from jaxtyping import Float64

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.interval import FEW, RESAMPLED, percentiles, resampled_means, student_interval


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The mean of second less first over n clips, the ends of its 95 % interval, and how often it is above zero."""

    difference: float
    low: float
    high: float
    above_zero: float  # share of resamples (0 to 1) in which the second run's mean is the higher
    n: int

    @property
    def enough(self) -> bool:
        """True where there are pairs enough to call one run better."""
        return self.n >= FEW

    @property
    def differs(self) -> bool:
        """True where there are pairs enough and the interval excludes zero."""
        return self.enough and not self.low <= 0 <= self.high


def compare(
    first: Float64[np.ndarray, "n"], second: Float64[np.ndarray, "m"], seed: int = 0, resamples: int = 2000
) -> Comparison:
    """Compares two runs by their scores on the same clips in the same order, the same for the same seed.

    Clips are resampled with both their scores, so that what makes a clip hard for both runs cancels (paired bootstrap:
    Koehn, "Statistical Significance Tests for Machine Translation Evaluation", EMNLP 2004). Below RESAMPLED clips the
    interval is Student's t of the differences. Raises UserError for scores of different counts and for fewer than two.
    """
    if len(first) != len(second):
        raise UserError(f"the runs have {len(first)} and {len(second)} scores: score the same clips with both")
    if len(first) < 2:
        raise UserError(f"a paired comparison needs at least 2 clips; there are {len(first)}")
    differences = second - first
    means = resampled_means(differences, seed, resamples)
    low, high = percentiles(means) if len(differences) >= RESAMPLED else student_interval(differences)
    return Comparison(float(differences.mean()), low, high, float(np.mean(means > 0)), len(differences))
