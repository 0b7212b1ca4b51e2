"""Fréchet distance between the features of two sets of clips; on I3D's, Fréchet video distance (arXiv 1812.01717)."""

import numpy as np
from jaxtyping import Float, Float64
from scipy.linalg import svdvals

from mobile_video_jax.metrics.counts import check_count

Features = Float[np.ndarray, "_ d"]

# Of frechet_infinity: the shares of clips it measures, and how many random subsets of each.
SHARES = np.linspace(0.5, 1.0, 6)
SUBSETS = 8


def frechet_distance(x: Features, y: Features) -> float:
    """The Fréchet distance of the normal laws fitted to features x [n d] and y [m d], in float64.

    |mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)) with unbiased covariances (arXiv 1706.08500, eq. 6). It is
    biased upward, by about a constant over the number of clips, so compare values for equal counts only. Raises
    UserError for fewer than two clips on a side.
    """
    check_count("Fréchet distance", 2, x, y)
    (mean_x, root_x), (mean_y, root_y) = _moments(x), _moments(y)
    # With C = R^T R, the trace of (C_x C_y)^(1/2) is the sum of the singular values of R_x R_y^T. No covariance is
    # formed and no matrix root taken, both of which lose digits where there are fewer clips than features.
    overlap = svdvals(root_x @ root_y.T).sum()
    return float(np.square(mean_x - mean_y).sum() + np.square(root_x).sum() + np.square(root_y).sum() - 2 * overlap)


def frechet_infinity(x: Features, y: Features, seed: int = 0) -> float:
    """The Fréchet distance that unlimited clips would have, the same for the same seed (arXiv 1911.07023).

    Random subsets hold from half to all clips; the distance is fitted as a line in one over that share, whose value at
    zero is the answer. Both sides are cut by the same share, where the paper has endless real images, so that neither's
    count biases the result. Some bias is left where there are not more clips than features. Raises UserError for fewer
    than four clips on a side.
    """
    check_count("Fréchet distance at infinity", 4, x, y)
    rng = np.random.default_rng(seed)
    distances = [_mean_distance(x, y, share, rng) for share in SHARES]
    return float(np.polynomial.polynomial.polyfit(1 / SHARES, distances, 1)[0])


def _mean_distance(x: Features, y: Features, share: float, rng: np.random.Generator) -> float:
    def subset(features: Features) -> Features:
        return rng.choice(features, round(share * len(features)), replace=False)

    subsets = SUBSETS if share < 1 else 1  # all clips make one subset
    return float(np.mean([frechet_distance(subset(x), subset(y)) for _ in range(subsets)]))


def _moments(x: Features) -> tuple[Float64[np.ndarray, "d"], Float64[np.ndarray, "_ d"]]:
    """The mean, and a root R of the covariance R^T R with no more rows than clips or features."""
    x = x.astype(np.float64)
    mean = x.mean(axis=0)
    return mean, np.asarray(np.linalg.qr((x - mean) / np.sqrt(len(x) - 1), mode="r"))
