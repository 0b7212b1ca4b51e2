"""A mean with its confidence interval, by the percentile bootstrap."""

import dataclasses

import numpy as np
from jaxtyping import Float64


@dataclasses.dataclass(frozen=True)
class Score:
    """The mean of n values and the ends of its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def bootstrap_mean(values: Float64[np.ndarray, "n"], seed: int = 0, resamples: int = 2000) -> Score:
    """The mean of finite values [n] with its 95 % percentile-bootstrap interval, the same for the same seed.

    Efron, "Bootstrap Methods: Another Look at the Jackknife", The Annals of Statistics 7(1), 1979. A single value is
    its own interval.
    """
    drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return Score(float(values.mean()), float(low), float(high), len(values))
