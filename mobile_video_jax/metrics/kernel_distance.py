"""Kernel distance between the features of two sets of clips, which few clips do not bias (arXiv 1801.01401)."""

import numpy as np
from jaxtyping import Float, Float64

from mobile_video_jax.metrics.counts import check_count


def kernel_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """The squared maximum mean discrepancy of features x and y, estimated without bias, in float64.

    The mean of k(x, x') over pairs of different clips, plus that of k(y, y'), less twice that of k(x, y), with the
    kernel k(a, b) = (a·b / d + 1)^3 (arXiv 1801.01401, section 4). On I3D's features it is kernel video distance
    (arXiv 1812.01717). It may be below zero where the sets differ little. Raises UserError for fewer than two clips on
    a side.
    """
    check_count("kernel distance", 2, x, y)
    x, y = x.astype(np.float64), y.astype(np.float64)
    return float(_mean_of_others(_kernel(x, x)) + _mean_of_others(_kernel(y, y)) - 2 * _kernel(x, y).mean())


def _kernel(x: Float64[np.ndarray, "n d"], y: Float64[np.ndarray, "m d"]) -> Float64[np.ndarray, "n m"]:
    kernel: np.ndarray = (x @ y.T / x.shape[1] + 1) ** 3
    return kernel


def _mean_of_others(kernel: Float64[np.ndarray, "n n"]) -> float:
    """The mean off the diagonal: a clip is not compared with itself."""
    count = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))
