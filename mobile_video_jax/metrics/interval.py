"""A mean with its 95 % confidence interval: by the bootstrap, or by Student's t where values are few."""

import dataclasses

import numpy as np
from jaxtyping import Float64
from scipy.special import stdtrit

# With fewer values no interval is trusted enough for a verdict.
FEW = 8
# With fewer values the percentile bootstrap is too narrow: of normal values its 95 % interval covers the mean in 78, 88
# and 91 % of trials with 4, 8 and 16 of them, Student's t in 95 %.
RESAMPLED = 30

Values = Float64[np.ndarray, "n"]


@dataclasses.dataclass(frozen=True)
class Score:
    """The mean of n values and the ends of its 95 % interval, None where one value has none."""

    value: float
    low: float | None
    high: float | None
    n: int


def mean_score(values: Values, seed: int = 0, resamples: int = 2000) -> Score:
    """The mean of finite values [n] with its 95 % interval, the same for the same seed.

    The percentile bootstrap (Efron, "Bootstrap Methods: Another Look at the Jackknife", The Annals of Statistics 7(1),
    1979) from RESAMPLED values on, Student's t below.
    """
    low, high = None, None
    if len(values) >= RESAMPLED:
        low, high = percentiles(resampled_means(values, seed, resamples))
    elif len(values) > 1:
        low, high = student_interval(values)
    return Score(float(values.mean()), low, high, len(values))


def resampled_means(values: Values, seed: int, resamples: int) -> Float64[np.ndarray, "r"]:
    """Means of n values sampled with replacement from n."""
    rows = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    return np.asarray(values[rows].mean(axis=1))


def percentiles(means: Float64[np.ndarray, "r"]) -> tuple[float, float]:
    """The ends of the middle 95 % of resampled means."""
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def student_interval(values: Values) -> tuple[float, float]:
    """The 95 % interval of the mean of two or more values ("Student", Biometrika 6(1), 1908)."""
    half = stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)
