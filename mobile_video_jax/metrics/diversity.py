"""Diversity of the samples of one prompt: the mean distance over all pairs."""

from itertools import combinations

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import pdist

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.metrics.counts import check_count
from mobile_video_jax.metrics.metric import Metric

DIVERSITY = Metric(
    key="diversity",
    name="diversity",
    meaning="root mean square difference of samples of one prompt",
    unit="grey levels",
)


def pixel_diversity(samples: Clips) -> float:
    """The mean over pairs of samples [b t h w 3] of their root mean square difference, in grey levels (0 to 255).

    Raises UserError for fewer than two samples.
    """
    check_count("diversity", 2, samples)
    pairs = combinations(samples.astype(np.float32), 2)
    return float(np.mean([np.sqrt(np.mean(np.square(a - b), dtype=np.float64)) for a, b in pairs]))


def feature_diversity(features: Float[np.ndarray, "n d"]) -> float:
    """The mean over pairs of samples of the Euclidean distance of their features, such as I3D's.

    Raises UserError for fewer than two samples.
    """
    check_count("diversity", 2, features)
    return float(pdist(features).mean())
