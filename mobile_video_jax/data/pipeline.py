"""From a prepared data set to batches of clips: shuffling, decoding in threads, exact resumption."""

from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.clip_loader import ClipLoader, Record, Window
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.share import Share


def no_more(record: Record) -> Record:
    """Nothing beside the video."""
    return {}


def clip_batches(
    source: ClipSource,
    split: str,
    clip: ClipShape,
    batch_size: int,
    seed: int,
    *,
    train: bool,
    threads: int = 4,
    process_index: int = 0,
    process_count: int = 1,
    also: Callable[[Record], Record] = no_more,
    native: float = 0.0,
) -> grain.IterDataset:
    """Batches {video: uint8 [b t h w 3], record: int64 [b]} of this process's share of the global batch.

    Training takes an order that depends on `seed` and the step alone, without end; each clip is a random window and
    crop, of which the share `native` is at the video's own resolution, and a record that is unusable is skipped for the
    next. Evaluation goes once through the split in order, with
    centre crops; its last batch is filled up with records from the beginning, and `weight` [b] is 0 for these, 1 for
    the others. `record` is the number in the split; `also` makes further arrays of a record, whose texts are bytes.
    Iterators resume exactly from `get_state`.

    Raises UserError when a training split has fewer clips than a batch, or cannot give such clips.
    """
    loader = ClipLoader(source, split, clip, native=native)
    size = len(loader)
    if batch_size % process_count:
        raise UserError(f"batch_size {batch_size} does not divide by {process_count} processes")
    if train and size < batch_size:
        raise UserError(
            f"{source.folder} has {size} clips in {split}, fewer than batch_size {batch_size}: "
            f"lower --config.batch_size to {size} or less"
        )
    if train:
        # Cropping before the share is taken ties a clip's crop to its position in the global order.
        order = grain.MapDataset.range(size).seed(seed).shuffle().repeat()
        clips = order.random_map(lambda number, rng: _for_training(loader.random(number, rng), also))
    else:
        order = grain.MapDataset.source(filled(size, batch_size))
        clips = order.map(lambda entry: _for_training(loader.window(Window(entry[0])), also) | {"weight": entry[1]})
    share = batch_size // process_count
    mine = Share(clips, batch_size, process_index, process_count).batch(share, drop_remainder=True)
    return mine.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))


def filled(size: int, batch_size: int) -> list[tuple[int, np.float32]]:
    """Numbers 0 to size - 1 with weight 1, and from the beginning again with weight 0 until the last batch is full."""
    return [(number % size, np.float32(number < size)) for number in range(-(-size // batch_size) * batch_size)]


def captioned_clips(
    source: ClipSource, split: str, clip: ClipShape, windows: Sequence[Window] | None = None, threads: int = 4
) -> grain.IterDataset:
    """Centre crops {video: uint8 [t h w 3], caption, id, attributes} of a split in order, or of some windows.

    `attributes` is empty where a data set has none. Raises UserError as `clip_batches` does; of some windows only as
    they are read.
    """
    loader = ClipLoader(source, split, clip, every=windows is None)
    order = grain.MapDataset.source([Window(number) for number in range(len(loader))] if windows is None else windows)
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return order.map(lambda window: _captioned(loader.window(window))).to_iter_dataset(reading)


def _for_training(record: Record, also: Callable[[Record], Record]) -> dict[str, np.ndarray]:
    return {key: record[key] for key in ("video", "record")} | also(record)


def _captioned(record: Record) -> dict[str, Any]:
    attributes = {
        key: value.decode() if isinstance(value, bytes) else value
        for key, value in record.get("attributes", {}).items()
    }
    text = {key: record[key].decode() for key in ("caption", "id")}
    return {"video": record["video"], **text, "attributes": attributes}
