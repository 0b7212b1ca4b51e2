"""Sources of data sets: rendered shapes, the sample clips, or a folder of videos."""

import contextlib
import dataclasses
import errno
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import tensorflow_datasets as tfds

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import ObjectPath, storage_path
from mobile_video_jax.data.prepare.captions import Rejection
from mobile_video_jax.data.prepare.folder_scan import Check, Clip, digest, scan
from mobile_video_jax.data.prepare.notes import usual_rate
from mobile_video_jax.data.prepare.sample_clips import write_shots
from mobile_video_jax.data.prepare.splits import SPLITS, split_clips
from mobile_video_jax.data.prepare.video_folder import VideoFolder
from mobile_video_jax.data.shapes.moving_shapes import FRAMES_PER_SECOND, MovingShapes
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.data.video.container import EXTENSIONS
from mobile_video_jax.data.video.scenes import check_detector

SIZES = {"train": 10_000, "validation": 256, "test": 256}  # default counts of rendered clips


@dataclasses.dataclass(frozen=True)
class Built:
    """A finished TFDS data set: its builder, what was left out, the frames of its shortest clip, and its frame rate.

    `clips` are the videos of each split in the order of their records; none for shapes that are rendered.
    """

    builder: tfds.core.DatasetBuilder
    rejections: Sequence[Rejection]
    shortest: int
    fps: float | None
    clips: Mapping[str, Sequence[Clip]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_videos(
        cls,
        builder: tfds.core.DatasetBuilder,
        clips: Mapping[str, Sequence[Clip]],
        rejections: Sequence[Rejection] = (),
        fps: float | None = None,
    ) -> "Built":
        """That of video files, resampled to `fps` or of the rates that they have."""
        every = [clip for part in clips.values() for clip in part]
        return cls(builder, rejections, min(clip.info.longest for clip in every), fps or usual_rate(every), clips)


@runtime_checkable
class Source(Protocol):
    """Everything that decides what a data set holds; its fields are the options a user may set."""

    def build(self, folder: Path) -> Built:
        """Writes the TFDS data set under `folder`."""

    def contents(self) -> str:
        """A digest that changes when the same source with the same options would give another data set."""


class TooManyRejected(UserError):
    """So large a share of a folder was rejected that using the rest would be a mistake."""

    def __init__(self, message: str, rejections: Sequence[Rejection]) -> None:
        super().__init__(message)
        self.rejections = rejections


@dataclasses.dataclass(frozen=True)
class ShapesSource:
    """Clips of moving shapes: `sizes` gives the number of clips in some of the splits, SIZES the rest."""

    clip: ClipShape = ClipShape(17, 32, 32)
    world: World = World()
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = {**SIZES, **self.sizes}
        if len(sizes) > len(SIZES) or min(sizes.values()) < 0 or not sizes["train"]:
            raise UserError(f"sizes {sizes}: give counts for {', '.join(SIZES)} alone, and at least one clip for train")

    def build(self, folder: Path) -> Built:
        sizes = {**SIZES, **self.sizes}
        builder = MovingShapes(data_dir=str(folder), world=self.world, clip=self.clip, sizes=sizes, seed=self.seed)
        return Built(_written(builder), (), self.clip.frames, FRAMES_PER_SECOND)

    def contents(self) -> str:
        return ""


@dataclasses.dataclass(frozen=True)
class SampleSource:
    """The sample clips, whose splits are fixed."""

    def build(self, folder: Path) -> Built:
        with tempfile.TemporaryDirectory() as temporary:
            splits = write_shots(Path(temporary))
            clips, _ = scan(Check(Path(temporary), min_frames=1))
            chosen = {split: [clip for clip in clips if splits[clip.id] == split] for split in SPLITS}
            return Built.of_videos(_written(VideoFolder(data_dir=str(folder), clips=chosen)), chosen)

    def contents(self) -> str:
        return ""


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """A folder of captioned videos.

    The shares `validation` and `test` are held out. With `fps` videos are resampled by time to so many frames a second,
    with `scenes` no clip crosses a cut. Videos without `min_frames` frames of one scene are rejected, and the build
    fails when more than the share `max_rejected` of the files and lines is.
    """

    folder: Path
    validation: float = 0.1
    test: float = 0.1
    min_frames: int = 2
    max_rejected: float = 0.5
    fps: float | None = None
    scenes: bool | None = None

    def __post_init__(self) -> None:
        if self.scenes:
            check_detector()
        for name in ("validation", "test", "max_rejected"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is a share between 0 and 1 for a folder of videos; got {getattr(self, name)}")
        if self.validation + self.test >= 1:
            raise UserError("validation and test take every clip: leave a share for train")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise UserError(f"fps is a number of frames a second between 0 and 1000; got {self.fps}")

    @property
    def check(self) -> Check:
        """The check that each file has to pass."""
        return Check(self.folder, self.min_frames, self.fps or 0.0, bool(self.scenes))

    def build(self, folder: Path) -> Built:
        clips, rejections = scan(self.check)
        splits = self.split(clips, rejections)
        return Built.of_videos(_written(VideoFolder(data_dir=str(folder), clips=splits)), splits, rejections, self.fps)

    def split(self, clips: Sequence[Clip], rejections: Sequence[Rejection]) -> dict[str, list[Clip]]:
        """The clips of each split. Raises UserError where there are too few."""
        total = len(clips) + len(rejections)
        if not total:
            raise UserError(f"{self.folder} holds no videos ({', '.join(EXTENSIONS)})")
        if not clips or len(rejections) > self.max_rejected * total:
            raise TooManyRejected(
                f"{len(rejections)} of {total} videos and captions of {self.folder} were rejected "
                f"(max_rejected is {self.max_rejected})",
                rejections,
            )
        return split_clips(clips, self.validation, self.test)

    def contents(self) -> str:
        return digest(self.folder)


NAMED: dict[str, type[Source]] = {"moving_shapes": ShapesSource, "sample_clips": SampleSource}


def find_source(name: str, options: Mapping[str, Any]) -> Source:
    """The source a user names. Raises UserError for one that is not there and for options it does not have."""
    folder = storage_path(name)
    if name not in NAMED and not folder.is_dir():
        raise UserError(f"source '{name}' is neither a folder nor one of {', '.join(NAMED)}")
    kind: Any = NAMED.get(name, FolderSource)
    known = {field.name for field in dataclasses.fields(kind)} - {"folder"}
    for option in options:
        if option not in known:
            raise UserError(f"source '{name}' has no option {option}; it has {', '.join(sorted(known)) or 'none'}")
    if name in NAMED:
        named: Source = kind(**options)
        return named
    source: Source = kind(folder if isinstance(folder, ObjectPath) else folder.resolve(), **options)
    return source


def _written(builder: tfds.core.DatasetBuilder) -> tfds.core.DatasetBuilder:
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()  # an unfinished bar would swallow the line that says what went wrong
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # stdout is for results, and TFDS announces itself there
            builder.download_and_prepare()
    except RuntimeError as error:  # ArrayRecord tells of a full disk in words alone
        for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code), str(builder.data_dir_root)) from error
        raise
    shutil.rmtree(builder.data_dir_root / "downloads")  # TFDS always makes one
    return builder
