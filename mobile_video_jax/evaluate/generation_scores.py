"""Scores of clips drawn for held-out captions, and beside them those of the real clips."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.evaluate.drawn_clips import read_drawn
from mobile_video_jax.evaluate.reconstruction import Code
from mobile_video_jax.metrics.clip_scorer import Caption, Scorer, watched
from mobile_video_jax.metrics.clip_scores import PerClip, columns, mean_scores
from mobile_video_jax.metrics.diversity import pixel_diversity
from mobile_video_jax.metrics.interval import Score, bootstrap_mean
from mobile_video_jax.metrics.reconstruction import psnr
from mobile_video_jax.metrics.video_distance import video_distances


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Files of drawn clips, one for each caption and then more; `groups` holds the places of those of one caption.

    `real` reads the real clips that captions of these numbers describe.
    """

    files: Sequence[Path]
    captions: Sequence[Caption]
    groups: Sequence[Sequence[int]]
    real: Callable[[Sequence[int]], Iterable[Frames]]

    @property
    def everyone(self) -> range:
        """The numbers of all captions."""
        return range(len(self.captions))

    @property
    def names(self) -> list[str]:
        """The names of the captions' mp4 files."""
        return [self.files[i].with_suffix(".mp4").name for i in self.everyone]

    def clips(self, places: Sequence[int]) -> Iterable[Frames]:
        """Reads drawn clips. Raises UserError for damaged ones."""
        return (read_drawn(self.files[i]) for i in places)


@dataclasses.dataclass(frozen=True)
class DrawnScores:
    """Scores of each caption's clip, those of all clips together, and those of other clips by what they are."""

    per_clip: PerClip
    metrics: dict[str, Score]
    beside: dict[str, dict[str, Score]]


def score_drawn(drawn: Drawn, scorer: Scorer, code: Code | None) -> DrawnScores:
    """What the scorer finds in drawn clips and in real ones, and the diversity within the groups.

    With the VAE's `code`, for clips that start from the real ones' first frames, also how close they stay to those,
    and what the VAE itself loses of them. Real clips have video distances between their two halves: half as many clips,
    which raises Fréchet distance.
    """
    everyone, count = drawn.everyone, len(drawn.captions)
    made = scorer(watched("score drawn clips:", drawn.clips(everyone), count), drawn.captions)
    real = scorer(watched("score real clips:", drawn.real(everyone), count), drawn.captions)
    per_clip, beside = dict(made.per_clip), {"real_clips": mean_scores(real.per_clip)}
    if code:
        per_clip |= closeness(drawn.real(everyone), drawn.clips(everyone))
        decoded = (code(frames[None])[1][0] for frames in drawn.real(everyone))
        beside["reconstructed_clips"] = mean_scores(closeness(drawn.real(everyone), decoded))
    metrics = mean_scores(per_clip)
    if drawn.groups:
        spread = [pixel_diversity(np.stack(list(drawn.clips(group)))) for group in drawn.groups]
        metrics["diversity"] = bootstrap_mean(np.array(spread))
    if made.features is not None and real.features is not None:
        metrics |= video_distances(made.features, real.features, paired=True)
        beside["real_clips"] |= video_distances(real.features[::2], real.features[1::2], paired=False)
    return DrawnScores(per_clip, metrics, beside)


def closeness(real: Iterable[Frames], made: Iterable[Frames]) -> PerClip:
    """PSNR of clips against real ones in dB, over all frames and over the first alone."""
    pairs = zip(real, made, strict=True)
    return columns({"psnr": float(psnr(x, y)), "first_frame_psnr": float(psnr(x[:1], y[:1]))} for x, y in pairs)
