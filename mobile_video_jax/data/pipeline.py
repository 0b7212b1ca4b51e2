"""From a prepared data set to batches of clips: shuffling, cropping, decoding in threads, exact resumption."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.dataset import Manifest, open_split
from mobile_video_jax.data.share import Share
from mobile_video_jax.data.video.container import UnreadableVideo
from mobile_video_jax.data.video.decode import decode
from mobile_video_jax.data.video.index import FrameIndex
from mobile_video_jax.data.video.render import Crop

ZOOM = 1.25  # a training crop shows at least 1 / ZOOM of what a centre crop shows, in each direction
Record = dict[str, Any]


def clip_batches(
    folder: Path,
    split: str,
    clip: ClipShape,
    batch_size: int,
    seed: int,
    *,
    train: bool,
    threads: int = 4,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.IterDataset:
    """Batches {video: uint8 [b t h w 3], record: int64 [b]} of this process's share of the global batch.

    Training draws in an order that depends on `seed` and the step alone, without end; each clip is a random stretch
    and crop. Evaluation goes once through the split in order, with centre crops, and leaves out the last
    len(split) % batch_size clips. `record` is the place in the split. Iterators resume exactly from `get_state`.

    Raises UserError when the split has fewer clips than a batch or cannot give such clips.
    """
    load, size = _loader(folder, split, clip)
    if batch_size % process_count:
        raise UserError(f"batch_size {batch_size} does not divide by {process_count} processes")
    if size < batch_size:
        raise UserError(f"{folder} has {size} clips in {split}, fewer than batch_size {batch_size}: lower batch_size")
    order = grain.MapDataset.range(size)
    if train:
        # Cropping before the share is taken ties a clip's crop to its place in the global order.
        clips = order.seed(seed).shuffle().repeat().random_map(lambda index, rng: _trained(load(index, rng)))
    else:
        clips = order[: size - size % batch_size].map(lambda index: _trained(load(index, None)))
    share = batch_size // process_count
    mine = Share(clips, batch_size, process_index, process_count).batch(share, drop_remainder=True)
    return mine.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))


def captioned_clips(
    folder: Path, split: str, clip: ClipShape, indices: Sequence[int] | None = None, threads: int = 4
) -> grain.IterDataset:
    """Centre crops {video: uint8 [t h w 3], caption, id, attributes} of a split in order, or of some of its records.

    `attributes` is empty where a data set has none. Raises UserError as `clip_batches` does; of some records only as
    they are read.
    """
    load, size = _loader(folder, split, clip, every=indices is None)
    order = grain.MapDataset.source(range(size) if indices is None else indices)
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return order.map(lambda index: _captioned(load(index, None))).to_iter_dataset(reading)


def video_shapes(folder: Path, split: str) -> list[ClipShape]:
    """Frames, height and width of every video of a split. Raises UserError as `open_split` does."""
    source, manifest = open_split(folder, split)
    if manifest["clip"] is not None:
        return [ClipShape.parse(manifest["clip"])] * len(source)
    records = (source[index] for index in range(len(source)))
    return [ClipShape(*(int(record[key]) for key in ("frames", "height", "width"))) for record in records]


def _loader(
    folder: Path, split: str, clip: ClipShape, *, every: bool = True
) -> tuple[Callable[[int, np.random.Generator | None], Record], int]:
    """A function that reads record `index` and adds its "video" and "record", and the number of records."""
    source, manifest = open_split(folder, split)
    if every or manifest["clip"] is not None:
        _check_clip(folder, manifest, clip)

    def load(index: int, rng: np.random.Generator | None) -> Record:
        name = f"record {index} of {split} in {folder}"
        try:
            record = source[index]
        except Exception as error:  # the reader's errors have no common type
            raise UserError(f"{name} is damaged ({error}): remove {folder} and prepare it again") from error
        try:
            video = _cut(record, clip, rng)
        except UnreadableVideo as error:
            file = record["id"].decode()
            raise UserError(f"{name} ({file}): {error}; remove the file and prepare the data set again") from error
        return {**record, "video": video, "record": np.int64(index)}

    return load, len(source)


def _check_clip(folder: Path, manifest: Manifest, clip: ClipShape) -> None:
    """Raises UserError unless every record can give the clip."""
    if manifest["clip"] is None:
        if manifest["shortest"] < clip.frames:
            raise UserError(
                f"{folder} has videos of {manifest['shortest']} frames, config asks for {clip}: "
                f"prepare it again with --min_frames={clip.frames}"
            )
        return
    made = ClipShape.parse(manifest["clip"])
    if made.frames < clip.frames or (made.height, made.width) != (clip.height, clip.width):
        raise UserError(
            f"data set {folder} made for {made}, config asks for {clip}: prepare it again with --clip={clip}"
        )


def _cut(record: Record, clip: ClipShape, rng: np.random.Generator | None) -> Frames:
    """The clip from a record: at random places, or from the middle without `rng`."""
    frames = record["frames"] if "encoded" in record else len(record["video"])
    spare = int(frames) - clip.frames
    start = int(rng.integers(spare + 1)) if rng else spare // 2
    if "encoded" not in record:
        return record["video"][start : start + clip.frames]
    crop = Crop(rng.uniform(1, ZOOM), rng.random(), rng.random()) if rng else Crop()
    index = FrameIndex.unpack(record["index"]) if record.get("index") else None
    return decode(record["encoded"], clip, start, crop, index)


def _trained(record: Record) -> Record:
    return {key: record[key] for key in ("video", "record")}


def _captioned(record: Record) -> Record:
    attributes = {
        key: value.decode() if isinstance(value, bytes) else value
        for key, value in record.get("attributes", {}).items()
    }
    text = {key: record[key].decode() for key in ("caption", "id")}
    return {"video": record["video"], **text, "attributes": attributes}
