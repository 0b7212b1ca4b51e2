"""Scores of clips, their means with intervals, and a scorer of generated clips.

A new metric of single clips is added to one of the tables below, and to metrics/by_stage.py where it is in none.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from mobile_video_jax.core.arrays import Clips, Frames
from mobile_video_jax.data.shapes.shape_world import Attributes
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.metrics.accuracy import ACCURACIES, attributes_right, chance, share
from mobile_video_jax.metrics.interval import Score, mean_score
from mobile_video_jax.metrics.metric import SHARE, Metric
from mobile_video_jax.metrics.motion import BACK_AND_FORTH, MOTION_ENERGY, back_and_forth, motion_energy
from mobile_video_jax.metrics.reconstruction import (
    FIRST_FRAME_PSNR,
    FLICKER,
    PSNR,
    SSIM,
    first_frame_psnr,
    flicker,
    psnr,
    ssim,
)
from mobile_video_jax.metrics.shape_detector import detect

PerClip = Mapping[Metric, np.ndarray]  # values [n], not finite where a clip has none
PairMetrics = Mapping[Metric, Callable[[Clips, Clips], np.ndarray]]  # of real clips and others [b t h w 3]: values [b]

# Of clips beside the real ones that they were decoded from.
RECONSTRUCTION: PairMetrics = {PSNR: psnr, SSIM: ssim, FLICKER: flicker}
# Of generated clips that start from the first frames of real ones, beside those.
CONTINUATION: PairMetrics = {PSNR: psnr, FIRST_FRAME_PSNR: first_frame_psnr}
# Of a generated clip [t h w 3] alone.
GENERATION: Mapping[Metric, Callable[[Frames], np.ndarray]] = {
    MOTION_ENERGY: motion_energy,
    BACK_AND_FORTH: back_and_forth,
}


def pair_scores(metrics: PairMetrics, real: Clips, clips: Clips) -> dict[Metric, np.ndarray]:
    """Scores of clips beside the real ones, but for metrics that want more frames than they have."""
    return {metric: score(real, clips) for metric, score in metrics.items() if clips.shape[1] >= metric.frames}


def columns(rows: Iterable[Mapping[Metric, float]]) -> dict[Metric, np.ndarray]:
    """One array a metric from one mapping a clip."""
    rows = list(rows)
    return {metric: np.array([row[metric] for row in rows], np.float64) for metric in rows[0]}


def mean_scores(per_clip: PerClip) -> dict[Metric, Score]:
    """The mean of every metric over the clips that have a value: Wilson's interval for shares, else `mean_score`."""
    finite = {metric: values[np.isfinite(values)] for metric, values in per_clip.items()}
    return {metric: _mean(metric, values) for metric, values in finite.items() if len(values)}


def _mean(metric: Metric, values: np.ndarray) -> Score:
    return share([bool(value) for value in values]) if metric.unit == SHARE else mean_score(values)


@dataclasses.dataclass(frozen=True)
class Caption:
    """Caption of a held-out clip, in words and, in the shape world, by attributes."""

    id: str
    text: str
    attributes: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class SetScores:
    """The scores of each clip of a set, and features [n d] for distances between sets, where they were asked for."""

    per_clip: PerClip
    features: Float[np.ndarray, "n d"] | None


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Scores clips one by one, so that large sets fit in memory.

    With a `world` also whether a clip shows what its caption asks for; `features` maps a clip to its features [d].
    """

    world: World | None
    features: Callable[[Frames], np.ndarray] | None = None

    def __call__(self, clips: Iterable[Frames], captions: Iterable[Caption]) -> SetScores:
        """The scores of clips that should show what the captions say."""
        rows, features = [], []
        for frames, caption in zip(clips, captions, strict=True):
            rows.append(self._row(frames, caption))
            if self.features:
                features.append(self.features(frames))
        return SetScores(columns(rows), np.stack(features) if features else None)

    def _row(self, frames: Frames, caption: Caption) -> dict[Metric, float]:
        row = {metric: float(score(frames)) for metric, score in GENERATION.items() if len(frames) >= metric.frames}
        if self.world is not None:
            right = attributes_right(self.world, Attributes(**caption.attributes), detect(frames, self.world))
            row |= {ACCURACIES[name]: float(value) for name, value in right.items()}
        return row

    def chance(self) -> dict[Metric, float]:
        """The accuracies of guessing."""
        return {ACCURACIES[name]: level for name, level in chance(self.world).items()} if self.world else {}
