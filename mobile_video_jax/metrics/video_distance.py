"""Fréchet and kernel video distance (arXiv 1812.01717) between sets of clips, on I3D's outputs that are kept on disk.

As published, both are of the logits of Kinetics-400's classes. Other code takes the 1,024 features before them, whose
Fréchet distance is given as well; the two are not comparable.
"""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing
from mobile_video_jax.metrics.frechet import frechet_distance
from mobile_video_jax.metrics.i3d import PACKAGE, activations, find_file, load_i3d
from mobile_video_jax.metrics.interval import Score
from mobile_video_jax.metrics.kernel_distance import kernel_distance
from mobile_video_jax.metrics.metric import Metric

Features = Float[np.ndarray, "_ d"]

KVD = Metric("kvd", "kernel video distance", "near or below zero where sets differ little", more_is_better=False)
FVD = Metric("fvd", "Fréchet video distance", "compare values of equal n alone", more_is_better=False)
FEATURE_FVD = Metric(
    "fvd_features", "Fréchet distance of I3D's features", "compare values of equal n alone", more_is_better=False
)
DISTANCES = (KVD, FVD, FEATURE_FVD)  # the least biased by few clips first

FRAMES = 16  # the shorter of the two usual lengths (arXiv 2112.14683); I3D itself takes 9
FEWEST = 4  # clips: two in each half
LOGITS = 400  # of Kinetics-400's classes, behind the features
RESAMPLES = 200
SETTINGS = {
    "network": f"I3D trained on Kinetics-400 ({PACKAGE}), frames at 224x224",
    "fvd": "of the 400 logits, as published; fvd_features of the 1,024 means of the last map",
    "kvd": "of the logits; each half of the clips against the other half of the real ones, where they come in pairs",
    "intervals": f"{RESAMPLES} bootstrap resamples over clips, moved so that their mean is the value",
}


class FeatureCache:
    """I3D's outputs for clips, each computed once and kept in `folder` under the digest of its frames."""

    def __init__(self, folder: Path):
        self._folder = folder

    def __call__(self, frames: Frames) -> Float32[np.ndarray, "1424"]:
        """The means of I3D's last map for one clip, and its logits."""
        key = hashlib.sha256(f"{PACKAGE} logits {frames.shape}".encode() + frames.tobytes()).hexdigest()
        path = self._folder / f"{key[:32]}.float32"
        if not path.exists():
            with replacing(path) as temporary:
                [pooled], [logits] = activations(self._params, frames[None])
                temporary.write_bytes(np.concatenate([pooled, logits]).tobytes())
        return np.frombuffer(path.read_bytes(), np.float32)

    @functools.cached_property
    def _params(self) -> dict[str, Any]:
        return load_i3d()


def obstacle(clip: ClipShape, count: int) -> str:
    """The reason why sets of so many such clips have no distance; empty where they have one."""
    if clip.frames < FRAMES:
        return f"video distances need clips of at least {FRAMES} frames; these have {clip.frames}"
    if count < FEWEST:
        return f"video distances need at least {FEWEST} clips; there are {count}"
    try:
        find_file()
    except UserError as error:
        return str(error)
    return ""


def video_distances(x: Features, y: Features, *, paired: bool) -> dict[Metric, Score]:
    """DISTANCES of the cache's outputs x and y for equally many clips, with 95 % intervals.

    `paired`: clip i of x was made from clip i of y or from its caption. Fréchet distance is biased upward by few clips:
    compare values of equal n alone.
    """
    kernel = _kernel_distance_across if paired else kernel_distance
    (features, logits), (real_features, real_logits) = (np.split(each, [-LOGITS], axis=1) for each in (x, y))
    return {
        KVD: _scored(kernel, logits, real_logits, paired),
        FVD: _scored(frechet_distance, logits, real_logits, paired),
        FEATURE_FVD: _scored(frechet_distance, features, real_features, paired),
    }


def _kernel_distance_across(x: Features, y: Features) -> float:
    """Kernel distance with each half of x against the other half of y, averaged.

    What a pair has in common would pull the whole sets' distance below zero.
    """
    return (kernel_distance(x[::2], y[1::2]) + kernel_distance(x[1::2], y[::2])) / 2


def _scored(distance: Callable[[Features, Features], float], x: Features, y: Features, paired: bool) -> Score:
    """The distance with the ends of its 95 % bootstrap interval.

    Clips resampled twice make two sets look farther apart than fresh sets would, so that the resamples' spread is
    taken around their own mean.
    """
    rng, value, resampled = np.random.default_rng(0), distance(x, y), []
    for _ in range(RESAMPLES):
        rows = rng.integers(len(x), size=len(x))
        resampled.append(distance(x[rows], y[rows if paired else rng.integers(len(y), size=len(y))]))
    low, high = value + np.quantile(resampled, [0.025, 0.975]) - np.mean(resampled)
    return Score(value, float(low), float(high), len(x))
