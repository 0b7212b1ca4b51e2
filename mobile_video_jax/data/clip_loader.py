"""Clips of one split, read from its records and decoded."""

import sys
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.video.container import UnreadableVideo
from mobile_video_jax.data.video.decode import decode
from mobile_video_jax.data.video.index import FrameIndex
from mobile_video_jax.data.video.render import Crop

ZOOM = 1.25  # a training crop shows at least 1 / ZOOM of what a centre crop shows, in each direction
SKIPPED = 0.01  # share of the records, and 10 at least, that training may skip
Record = dict[str, Any]


class Window(NamedTuple):
    """A clip of record number `record` from frame `start` on; from the middle of its longest scene without one."""

    record: int
    start: int | None = None


class UnusableRecord(UserError):
    """A record that has changed since it was written, or that this machine cannot decode."""


class ClipLoader:
    """Loads clips of one shape. Raises UserError where the records of the split cannot give them.

    The share `native` of training clips are crops at the videos' own resolution.
    """

    def __init__(self, source: ClipSource, split: str, clip: ClipShape, *, every: bool = True, native: float = 0.0):
        self._name = f"{split} in {source.folder}"
        self._folder, self._clip, self._records = source.folder, clip, source.records(split)
        self._native, self._skipped = native, set[int]()
        if every or source.clip:
            _check_clip(source, clip)

    def __len__(self) -> int:
        return len(self._records)

    def window(self, window: Window) -> Record:
        """The record with "video", the clip cropped at its centre, and "record". Raises UnusableRecord."""
        record = self._read(window.record)
        return self._loaded(window.record, record, _start(record, self._clip, window.start), Crop())

    def random(self, number: int, rng: np.random.Generator) -> Record:
        """The same with a random window and crop; of the next record that is usable, where this one is not."""
        for index in range(number, number + len(self)):
            try:
                record = self._read(index % len(self))
                start = _random_start(record, self._clip, rng)
                return self._loaded(index % len(self), record, start, self._random_crop(record, rng))
            except UnusableRecord as error:
                self._skip(index % len(self), error)
        raise UserError(f"no record of {self._name} is usable: prepare the data set again")

    def _random_crop(self, record: Record, rng: np.random.Generator) -> Crop:
        """Most of the frame, or a part of it at its own resolution; all of frames that are stored as arrays."""
        if "encoded" not in record:
            return Crop()
        zoom, row, column = rng.uniform(1, ZOOM), rng.random(), rng.random()
        return Crop(zoom, row, column, native=bool(self._native) and rng.random() < self._native)

    def _read(self, number: int) -> Record:
        try:
            record: Record = self._records[number]
        except Exception as error:  # the reader's errors have no common type
            raise UnusableRecord(
                f"record {number} of {self._name} is damaged ({error}): remove {self._folder} and prepare it again"
            ) from error
        return record

    def _loaded(self, number: int, record: Record, start: int, crop: Crop) -> Record:
        try:
            video = _cut(record, self._clip, start, crop)
        except UnreadableVideo as error:
            raise UnusableRecord(
                f"record {number} of {self._name} ({record['id'].decode()}): {error}; "
                "remove the file and prepare the data set again"
            ) from error
        return {**record, "video": video, "record": np.int64(number)}

    def _skip(self, number: int, error: UnusableRecord) -> None:
        """Reports a record once. Raises UserError where there are too many."""
        if number in self._skipped:
            return
        self._skipped.add(number)
        print(f"skipped {len(self._skipped)} so far: {error}", file=sys.stderr)
        if len(self._skipped) > max(SKIPPED * len(self), 10) or len(self._skipped) == len(self):
            raise UserError(f"{len(self._skipped)} of {len(self)} records of {self._name} are unusable: {error}")


def _scenes(record: Record) -> tuple[Int32[np.ndarray, "s"], Int32[np.ndarray, "s"]]:
    """The first frames of a record's scenes, and how many frames each has."""
    if "encoded" not in record:
        return np.zeros(1, np.int32), np.array([len(record["video"])], np.int32)
    scenes = FrameIndex.unpack(record["index"]).scenes if record.get("index") else np.zeros(1, np.int32)
    return scenes, np.diff(scenes, append=np.int32(record["frames"]))


def _start(record: Record, clip: ClipShape, start: int | None) -> int:
    if start is not None:
        return start
    scenes, lengths = _scenes(record)
    longest = int(lengths.argmax())
    return int(scenes[longest] + max(lengths[longest] - clip.frames, 0) // 2)


def _random_start(record: Record, clip: ClipShape, rng: np.random.Generator) -> int:
    """One of the starts from which the clip stays in a scene, each as likely as any other."""
    scenes, lengths = _scenes(record)
    choices = np.maximum(lengths - clip.frames + 1, 0)
    choice = int(rng.integers(max(int(choices.sum()), 1)))
    scene = int(np.searchsorted(choices.cumsum(), choice, side="right")) if choices.any() else 0
    return int(scenes[scene]) + choice - int(choices[:scene].sum())


def _cut(record: Record, clip: ClipShape, start: int, crop: Crop) -> Frames:
    if "encoded" not in record:
        video: Frames = record["video"][start : start + clip.frames]
        return video
    index = FrameIndex.unpack(record["index"]) if record.get("index") else None
    return decode(record["encoded"], clip, start, crop, index)


def _check_clip(source: ClipSource, clip: ClipShape) -> None:
    """Raises UserError unless every record can give the clip."""
    folder, stored = source.folder, source.clip
    if stored is None:
        shortest = source.manifest["shortest"]
        if shortest < clip.frames:
            raise UserError(
                f"{folder} has videos of {shortest} frames, config asks for {clip}: "
                f"prepare it again with --min_frames={clip.frames}"
            )
    elif stored.frames < clip.frames or (stored.height, stored.width) != (clip.height, clip.width):
        raise UserError(
            f"data set {folder} made for {stored}, config asks for {clip}: prepare it again with --clip={clip}"
        )
