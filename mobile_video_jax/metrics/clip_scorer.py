"""Scoring sets of clips one clip at a time, so that large ones fit: drawn clips, and real ones to put beside them."""

import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.progress import Progress
from mobile_video_jax.data.shapes.shape_world import Attributes
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.metrics.accuracy import accuracies
from mobile_video_jax.metrics.clip_scores import ACCURACY, PerClip, columns, motion_scores
from mobile_video_jax.metrics.shape_detector import chance, detect
from mobile_video_jax.metrics.video_distance import FeatureCache, Features

REPORT_EVERY = 5.0  # seconds


@dataclasses.dataclass(frozen=True)
class Caption:
    """What a held-out clip shows, in words and, in the shape world, by attributes."""

    id: str
    text: str
    attributes: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ClipSet:
    """The scores of each clip, and the I3D features [n 1024] where they were asked for."""

    per_clip: PerClip
    features: Features | None


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Scores clips: their motion, with a world whether they show what their captions ask for, with `cache` features."""

    world: World | None
    cache: FeatureCache | None

    def __call__(self, clips: Iterable[Frames], captions: Iterable[Caption]) -> ClipSet:
        """The scores of clips that should show what the captions say."""
        rows, features = [], []
        for frames, caption in zip(clips, captions, strict=True):
            rows.append(motion_scores(frames) | self._right(frames, caption))
            if self.cache:
                features.append(self.cache(frames))
        return ClipSet(columns(rows), np.stack(features) if features else None)

    def _right(self, frames: Frames, caption: Caption) -> dict[str, float]:
        """1 for each attribute that the detector reads as asked, else 0."""
        if self.world is None:
            return {}
        pair = (Attributes(**caption.attributes), detect(frames, self.world))
        return {f"{ACCURACY}{name}": score.value for name, score in accuracies(self.world, [pair]).items()}

    def chance(self) -> dict[str, float]:
        """The accuracies of guessing."""
        if self.world is None:
            return {}
        level = {name: value for name, value in chance(self.world).items() if value < 1}
        level["all"] = float(np.prod(list(level.values())))
        return {f"{ACCURACY}{name}": value for name, value in level.items()}


def watched(name: str, clips: Iterable[Frames], total: int) -> Iterator[Frames]:
    """The clips, with lines of progress on stderr as they are taken."""
    progress, said = Progress(name, total), time.monotonic()
    for done, frames in enumerate(clips, start=1):
        yield frames
        if done == total or time.monotonic() - said > REPORT_EVERY:
            progress.report(done)
            said = time.monotonic()
