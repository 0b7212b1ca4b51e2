"""The data set of a study of VAEs: rendered, prepared before, or made from a folder of videos."""

import itertools
from pathlib import Path

import numpy as np

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.data.dataset import MANIFEST, ClipSource, open_split
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.metrics.interval import FEW
from mobile_video_jax.studies.config import StudyConfig


def study_data(study: StudyConfig, out: Path) -> Path:
    """The folder of the study's data set, which `make_data` makes where it is in `out`.

    Raises UserError where the study's `data` are no folder.
    """
    source = storage_path(study.data)
    if not study.data or (source.is_dir() and not (source / MANIFEST).exists()):
        return out / "data"
    open_split(source, "train")
    return source


def make_data(study: StudyConfig, data: Path) -> None:
    """Renders the study's clips, or prepares its folder of videos; a data set that is there is left as it is.

    Raises UserError for a folder without usable videos, or with too few.
    """
    if study.data and storage_path(study.data) != data:
        frames = max(ClipShape.parse(clip).frames for clip in (study.vae.clip, judged_clip(study)))
        prepare(study.data, data, min_frames=frames)
    elif not study.data:
        sizes = {"train": study.train_clips, "validation": study.validation_clips, "test": study.test_clips}
        prepare("moving_shapes", data, world=study.world, clip=ClipShape.parse(study.vae.clip), sizes=sizes)
    check_enough(data)


def check_enough(data: Path) -> None:
    """Raises UserError where the test split has fewer clips than a verdict needs."""
    count = len(open_split(data, "test")[0])
    if count < FEW:
        raise UserError(f"{data} has {count} test clips, a verdict needs {FEW}: add videos, or hold out a larger share")


def judged_clip(study: StudyConfig) -> str:
    """The shape of the clips that reconstructions are evaluated on."""
    return study.judged_clip or study.vae.clip


def held_out_clips(data: Path, clip: ClipShape, count: int) -> Clips:
    """Up to `count` test clips."""
    items = itertools.islice(captioned_clips(ClipSource.open(data), "test", clip), count)
    return np.stack([item["video"] for item in items])
