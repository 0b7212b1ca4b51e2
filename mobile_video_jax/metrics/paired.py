"""Which of two runs is better on the same clips or prompts, by the paired bootstrap."""

import dataclasses

import numpy as np
from jaxtyping import Float64

from mobile_video_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The mean of second less first over n clips, the ends of its 95 % interval, and how often it is above zero."""

    difference: float
    low: float
    high: float
    above_zero: float  # share of resamples (0 to 1) in which the second run's mean is the higher
    n: int


def compare(
    first: Float64[np.ndarray, "n"], second: Float64[np.ndarray, "m"], seed: int = 0, resamples: int = 2000
) -> Comparison:
    """Compares two runs by their scores on the same clips in the same order, the same for the same seed.

    Clips are drawn with replacement, each with both its scores, so that what makes a clip hard for both runs cancels
    (percentile bootstrap: Efron, "Bootstrap Methods: Another Look at the Jackknife", The Annals of Statistics 7(1),
    1979; paired, for comparing systems: Koehn, "Statistical Significance Tests for Machine Translation Evaluation",
    EMNLP 2004). Raises UserError for scores of different counts and for fewer than two.
    """
    if len(first) != len(second):
        raise UserError(f"the runs have {len(first)} and {len(second)} scores: score the same clips with both")
    if len(first) < 2:
        raise UserError(f"a paired comparison needs at least 2 clips; there are {len(first)}")
    differences = second - first
    drawn = np.random.default_rng(seed).integers(len(differences), size=(resamples, len(differences)))
    means = differences[drawn].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Comparison(float(differences.mean()), float(low), float(high), float(np.mean(means > 0)), len(differences))
