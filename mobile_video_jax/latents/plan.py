"""Plan of an encoding: which windows of which videos, cropped to which shape, in which shards."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Count, CountOrZero, Size, SizeOrZero
from mobile_video_jax.core.revision import digest
from mobile_video_jax.data.clip_loader import Window
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.data.table import Row
from mobile_video_jax.latents.buckets import assign_buckets, check_buckets
from mobile_video_jax.latents.store import shard_path

Members = dict[str, dict[ClipShape, list[Window]]]  # of each split and shape


@dataclasses.dataclass(frozen=True)
class EncodeOptions(Config):
    """Options of encoding a data set. Each video is cropped to that of `clips` which suits it best (buckets.py).

    One clip of each video is taken, from its middle; or `clips_per_video`, spread evenly; or every one that begins at a
    multiple of `window_stride` frames; none crosses a cut between scenes. A batch holds `batch_size` clips of the first
    shape, or as many of another as have no more pixels; `rows` devices share each clip.
    """

    text_encoder: str = "minilm"  # the name of a text encoder, as load_text_encoder takes it
    clips: tuple[str, ...] = ()  # frames x height x width; the VAE's training clip if empty
    batch_size: Count = 32  # clips of the first shape
    shard_records: Count = 1024  # clips of a shard
    text_tokens: SizeOrZero = 0  # tokens at which captions are cut; 0: the encoder's limit
    rows: Size = 1  # devices that share each clip
    clips_per_video: Count = 1  # clips of each video, spread evenly
    window_stride: CountOrZero = 0  # frames; 0: no windows
    threads: SizeOrZero = 0  # threads that decode clips; 0: as many as the host has cores

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window_stride and self.clips_per_video > 1:
            raise UserError("--window_stride takes every window: give it, 1 or more, or --clips_per_video")

    @property
    def windows(self) -> dict[str, int]:
        """The options on windows that are not the default."""
        values = {"clips_per_video": self.clips_per_video, "window_stride": self.window_stride}
        return {name: value for name, value in values.items() if value > (name == "clips_per_video")}


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """A shard to write: windows of one split in one shape, and a key of each that tells what it is made of."""

    path: Path
    split: str
    shape: ClipShape
    windows: list[Window]
    keys: list[str]


def plan_members(source: ClipSource, shapes: Sequence[ClipShape], options: EncodeOptions) -> Members:
    """The windows of each split by shape. Raises UserError where the videos do not fit the shapes."""
    if len(shapes) == 1:
        for split in source.sizes:
            captioned_clips(source, split, shapes[0])  # raises for clips that do not fit
        numbers = {split: {shapes[0]: list(range(size))} for split, size in source.sizes.items()}
    else:
        videos = {split: source.shapes(split) for split in source.sizes}
        check_buckets(shapes, list(itertools.chain(*videos.values())))
        numbers = {split: assign_buckets(shapes, sizes) for split, sizes in videos.items()}
        for split, shape in itertools.product(source.sizes, shapes):
            captioned_clips(source, split, shape, [])  # raises where a set of rendered clips has another size
    return {
        split: {shape: _windows(source, split, chosen, shape, options) for shape, chosen in parts.items()}
        for split, parts in numbers.items()
    }


def plan_jobs(out: Path, source: ClipSource, members: Members, options: EncodeOptions) -> list[ShardJob]:
    """The shards of all members, in order."""
    jobs = []
    for split, parts in members.items():
        identities = _identities(source, split)
        for shape, windows in parts.items():
            starts = range(0, len(windows), options.shard_records)
            for i, start in enumerate(starts):
                some = windows[start : start + options.shard_records]
                keys = [digest([identities[window.record], window.start, str(shape)]) for window in some]
                jobs.append(ShardJob(shard_path(out, split, shape, i, len(starts)), split, shape, some, keys))
    return jobs


def shard_sizes(members: Members, shard_records: int) -> dict[str, dict[str, dict[str, int]]]:
    """Records and shards of each shape of each split."""
    return {
        split: {
            str(shape): {"records": len(windows), "shards": -(-len(windows) // shard_records)}
            for shape, windows in parts.items()
        }
        for split, parts in members.items()
    }


def _windows(
    source: ClipSource, split: str, numbers: Sequence[int], shape: ClipShape, options: EncodeOptions
) -> list[Window]:
    if not options.windows:
        return list(map(Window, numbers))
    rows, shapes = source.rows(split), source.shapes(split)
    windows = []
    for number in numbers:
        scenes, frames = (rows[number].scenes, rows[number].frames) if rows else ((0,), shapes[number].frames)
        windows += [Window(number, start) for start in window_starts(scenes, frames, shape.frames, options)]
    return windows


def window_starts(scenes: Sequence[int], frames: int, length: int, options: EncodeOptions) -> list[int]:
    """The first frames of a video's windows of `length` frames, each in one scene."""
    spans = [(start, end - length) for start, end in itertools.pairwise([*scenes, frames]) if end - start >= length]
    if options.window_stride:
        return [start for first, last in spans for start in range(first, last + 1, options.window_stride)]
    starts = [start for first, last in spans for start in range(first, last + 1)]
    count = min(options.clips_per_video, len(starts))
    middles = (np.arange(count) + 0.5) * len(starts) / count
    return [starts[int(middle)] for middle in middles]


def _identities(source: ClipSource, split: str) -> list[Any]:
    """A digest of what each record's clips depend on beside the encoding, by which a changed one shows."""
    if rows := source.rows(split):
        return [_identity(row) for row in rows]
    made_of = {key: source.manifest[key] for key in ("source", "options", "contents")}
    return [[made_of, split, number] for number in range(source.sizes[split])]


def _identity(row: Row) -> list[Any]:
    return [row.id, row.caption, row.sha256, row.fps, row.frames, list(row.scenes)]
