"""Scores of clips generated for held-out captions, and beside them those of the real clips."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.progress import tracked
from mobile_video_jax.evaluate.generated_clips import ClipFiles
from mobile_video_jax.evaluate.reconstruction import Coder
from mobile_video_jax.metrics.clip_scores import (
    CONTINUATION,
    PerClip,
    Scorer,
    mean_scores,
    pair_scores,
)
from mobile_video_jax.metrics.diversity import DIVERSITY, pixel_diversity
from mobile_video_jax.metrics.interval import Score, mean_score
from mobile_video_jax.metrics.metric import Metric
from mobile_video_jax.metrics.video_distance import video_distances


@dataclasses.dataclass(frozen=True)
class GenerationScores:
    """Scores of each caption's clip, those of all clips together, and those of other clips by what they are."""

    per_clip: PerClip
    metrics: dict[Metric, Score]
    beside: dict[str, dict[Metric, Score]]


def score_generation(clips: ClipFiles, scorer: Scorer, coder: Coder | None) -> GenerationScores:
    """The scorer's scores of generated and of real clips, and the diversity within the groups.

    With the VAE's `coder`, for clips that start from the real ones' first frames, also how close they stay to those,
    and what the VAE itself loses of them. Real clips have video distances between their two halves: half as many clips,
    which raises Fréchet distance.
    """
    indices, count = clips.indices, len(clips.captions)
    generated = scorer(tracked("score generated clips:", clips.generated(indices), count), clips.captions)
    real = scorer(tracked("score real clips:", clips.real(indices), count), clips.captions)
    per_clip, beside = dict(generated.per_clip), {"real_clips": mean_scores(real.per_clip)}
    if coder:
        per_clip |= _closeness(clips.real(indices), clips.generated(indices))
        decoded = (coder(frames[None])[1][0] for frames in clips.real(indices))
        beside["reconstructed_clips"] = mean_scores(_closeness(clips.real(indices), decoded))
    metrics = mean_scores(per_clip)
    if clips.groups:
        spread = [pixel_diversity(np.stack(list(clips.generated(group)))) for group in clips.groups]
        metrics[DIVERSITY] = mean_score(np.array(spread))
    if generated.features is not None and real.features is not None:
        metrics |= video_distances(generated.features, real.features, paired=True)
        beside["real_clips"] |= video_distances(real.features[::2], real.features[1::2], paired=False)
    return GenerationScores(per_clip, metrics, beside)


def _closeness(real: Iterable[Frames], others: Iterable[Frames]) -> PerClip:
    """The CONTINUATION metrics of clips beside the real ones, clip by clip so that large sets fit."""
    rows = [pair_scores(CONTINUATION, x[None], y[None]) for x, y in zip(real, others, strict=True)]
    return {metric: np.concatenate([row[metric] for row in rows]) for metric in rows[0]}
