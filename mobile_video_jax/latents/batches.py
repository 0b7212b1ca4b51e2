"""Batches of latents from encoded data sets, each of clips of one shape, in an order that (seed, step) decide."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import Any

import grain
import numpy as np

from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.pipeline import filled
from mobile_video_jax.data.share import Share
from mobile_video_jax.latents.store import Record, has_split, open_shards, parse, read_manifest, shards
from mobile_video_jax.text.encoder import pad


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Records that share batches: `clip` is their shape, or the longest of them; `first` numbers them all."""

    clip: ClipShape
    source: grain.sources.ArrayRecordDataSource
    paths: list[Path]
    latent_frames: int
    first: int


@dataclasses.dataclass(frozen=True)
class Mix:
    """A mix of buckets: the clips of a batch, and how often each bucket has its turn.

    `batch_size` tells the clips of a batch of one shape. A bucket has turns by its number of batches, but one-frame
    clips (images) have the share `image_share` of all where that is not negative. With `pad_durations` clips of one
    size share a bucket whatever their length, and the short ones are padded.
    """

    batch_size: Callable[[ClipShape], int]
    image_share: float = -1.0
    pad_durations: bool = False


def no_more(record: Record) -> Record:
    """Nothing beside latents and text."""
    return {}


def latent_batches(
    folders: Sequence[Path],
    split: str,
    mix: Mix,
    *,
    text_tokens: int,
    seed: int,
    train: bool,
    threads: int,
    process_index: int = 0,
    process_count: int = 1,
    also: Callable[[Record], Record] = no_more,
) -> grain.IterDataset:
    """Batches {latents [b lt lh lw c], text [b s e], text_mask [b s], record [b]} of this process's share.

    With padded durations also latent_mask [b lt lh lw], False where a clip is padding. Training shuffles every bucket
    globally and repeats for ever, in an order that depends on (seed, step) alone; a bucket that does not fill a batch
    raises UserError. Evaluation takes every record once, the buckets in turns and each in order; a bucket's last batch
    is filled up with its first records, and weight [b] is 0 for these, 1 for the others. Captions of more than
    `text_tokens` tokens raise UserError. `also` makes further arrays of a record.
    """
    parts = buckets(folders, split, pad_durations=mix.pad_durations)

    def batches(bucket: Bucket, order: grain.MapDataset) -> grain.MapDataset:
        size = mix.batch_size(bucket.clip)
        share = Share(order, size, process_index, process_count)
        records = share.map(lambda entry: loaded(bucket, entry))
        return records.batch(size // process_count, drop_remainder=True)

    def loaded(bucket: Bucket, entry: Any) -> Record:
        """The record of an index, or of an index and the weight it is evaluated with."""
        if train:
            return _load(bucket, entry, text_tokens, mix, also)
        index, weight = entry
        return {**_load(bucket, index, text_tokens, mix, also), "weight": weight}

    if train:
        _check_full(folders, split, parts, mix)
        turns = [(bucket, weight) for bucket, weight in zip(parts, _turns(parts, mix), strict=True) if weight]
        shuffled = [
            batches(bucket, grain.MapDataset.range(len(bucket.source)).seed(seed).shuffle().repeat())
            for bucket, _ in turns
        ]
        dataset = grain.MapDataset.mix(shuffled, [weight for _, weight in turns])
    else:
        orders = [filled(len(bucket.source), mix.batch_size(bucket.clip)) for bucket in parts]
        ordered = [batches(bucket, grain.MapDataset.source(order)) for bucket, order in zip(parts, orders, strict=True)]
        dataset = grain.MapDataset.source(_in_turns(ordered)).map(lambda turn: ordered[turn[0]][turn[1]])
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads))


def _in_turns(parts: Sequence[Sized]) -> list[tuple[int, int]]:
    """(part, position) of all their elements: the first of each part, then the second of each that has one, …"""
    turns = [(part, position) for part, elements in enumerate(parts) for position in range(len(elements))]
    return sorted(turns, key=lambda turn: turn[::-1])


def _check_full(folders: Sequence[Path], split: str, parts: Sequence[Bucket], mix: Mix) -> None:
    """Raises UserError for a bucket that does not fill a batch."""
    for bucket in parts:
        size = mix.batch_size(bucket.clip)
        if len(bucket.source) < size:
            raise UserError(
                f"{' and '.join(map(str, folders))} hold {len(bucket.source)} {split} records of {bucket.clip}, fewer "
                f"than one batch of {size}: lower --config.batch_size or --config.token_budget, or encode more of them"
            )


def buckets(folders: Sequence[Path], split: str, *, pad_durations: bool) -> list[Bucket]:
    """The buckets of a split of all folders together, from the smallest on."""
    strides = Compression.parse(read_manifest(folders[0])["compression"])
    paths: dict[ClipShape, list[Path]] = {}
    # Some of several data sets may hold nothing out.
    holders = [folder for folder in folders if split == "train" or has_split(folder, split)] or folders
    for folder in holders:
        for clip, files in shards(folder, split).items():
            paths.setdefault(clip, []).extend(files)
    parts, first = [], 0
    for _, group in itertools.groupby(sorted(paths, key=_size), lambda clip: _size(clip)[: 2 if pad_durations else 3]):
        clips = list(group)
        files = [path for clip in clips for path in paths[clip]]
        source = open_shards(files)
        parts.append(Bucket(clips[-1], source, files, clips[-1].latent(strides)[0], first))
        first += len(source)
    return parts


def _size(clip: ClipShape) -> tuple[int, int, int]:
    return clip.height, clip.width, clip.frames


def _turns(parts: Sequence[Bucket], mix: Mix) -> list[float]:
    """Each bucket's number of batches, images and videos brought to their shares of all."""
    turns = [len(bucket.source) / mix.batch_size(bucket.clip) for bucket in parts]
    image = [bucket.clip.frames == 1 for bucket in parts]
    images = sum(turn for turn, is_image in zip(turns, image, strict=True) if is_image)
    if mix.image_share < 0 or images in (0, sum(turns)):
        return turns
    shares = {True: mix.image_share / images, False: (1 - mix.image_share) / (sum(turns) - images)}
    return [turn * shares[is_image] for turn, is_image in zip(turns, image, strict=True)]


def _load(bucket: Bucket, index: int, text_tokens: int, mix: Mix, also: Callable[[Record], Record]) -> Record:
    try:
        record = parse(bucket.source[index])
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"record {index} of {bucket.clip} beside {bucket.paths[0]} is damaged ({error}): encode the data set again"
        ) from error
    states, text_mask = pad([record["text_states"]], text_tokens)
    latents = record["latents"]
    loaded = {"text": states[0], "text_mask": text_mask[0], "record": np.int64(bucket.first + index), **also(record)}
    if not mix.pad_durations:
        return {"latents": latents, **loaded}
    missing = bucket.latent_frames - len(latents)
    padded = np.pad(latents, [(0, missing), (0, 0), (0, 0), (0, 0)])
    mask = np.arange(bucket.latent_frames)[:, None, None] < np.full(latents.shape[1:3], len(latents))
    return {"latents": padded, "latent_mask": mask, **loaded}
