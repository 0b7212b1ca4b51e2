"""Batches of latents from encoded data sets, each of clips of one shape, in an order that (seed, step) decide."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import grain
import numpy as np

from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.share import Share
from mobile_video_jax.latents.store import Record, open_shards, parse, read_manifest, shards
from mobile_video_jax.text.encoder import pad


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Records that share batches: `clip` is their shape, or the longest of them; `first` numbers them all."""

    clip: ClipShape
    source: grain.sources.ArrayRecordDataSource
    latent_frames: int
    first: int


@dataclasses.dataclass(frozen=True)
class Mix:
    """What a batch holds of each bucket, and how often each has its turn.

    `batch_size` tells the clips of a batch of one shape. A bucket has turns by its number of batches, but one-frame
    clips (images) have the share `image_share` of all where that is not negative. With `pad_durations` clips of one
    size share a bucket whatever their length, and the short ones are padded.
    """

    batch_size: Callable[[ClipShape], int]
    image_share: float = -1.0
    pad_durations: bool = False


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
) -> grain.IterDataset:
    """Batches {latents [b lt lh lw c], text [b s e], text_mask [b s], record [b]} of this process's share.

    With padded durations also latent_mask [b lt lh lw], False where a clip is padding. Training shuffles every bucket
    globally and repeats for ever, in an order that depends on (seed, step) alone; evaluation goes once through the
    buckets in turns, each in order. Captions of more than `text_tokens` tokens raise UserError, and so does a bucket
    that does not fill a batch.
    """

    def batches(bucket: Bucket) -> grain.MapDataset:
        order = grain.MapDataset.range(len(bucket.source))
        if train:
            order = order.seed(seed).shuffle().repeat()
        size = mix.batch_size(bucket.clip)
        share = Share(order, size, process_index, process_count)
        records = share.map(lambda index: _load(bucket, index, text_tokens, mix))
        return records.batch(size // process_count, drop_remainder=True)

    found = buckets(folders, split, pad_durations=mix.pad_durations)
    full = [bucket for bucket in found if len(bucket.source) >= mix.batch_size(bucket.clip)]
    if not full or (train and len(full) < len(found)):
        [short, *_] = [bucket for bucket in found if bucket not in full]
        raise UserError(
            f"{' and '.join(map(str, folders))} hold {len(short.source)} {split} records of {short.clip}, fewer than "
            f"one batch of {mix.batch_size(short.clip)}: lower batch_size or token_budget, or encode more of them"
        )
    weights = _turns(full, mix) if train else [1.0] * len(full)
    taken = [(bucket, weight) for bucket, weight in zip(full, weights, strict=True) if weight]
    dataset = grain.MapDataset.mix([batches(bucket) for bucket, _ in taken], [weight for _, weight in taken])
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads))


def buckets(folders: Sequence[Path], split: str, *, pad_durations: bool) -> list[Bucket]:
    """The buckets of a split of all folders together, from the smallest on."""
    strides = Compression.parse(read_manifest(folders[0])["compression"])
    paths: dict[ClipShape, list[Path]] = {}
    for folder in folders:
        for clip, files in shards(folder, split).items():
            paths.setdefault(clip, []).extend(files)
    key = lambda clip: (clip.height, clip.width) if pad_durations else clip
    found, first = [], 0
    for _, group in itertools.groupby(sorted(paths, key=lambda clip: (clip.height, clip.width, clip.frames)), key):
        clips = list(group)
        source = open_shards([path for clip in clips for path in paths[clip]])
        found.append(Bucket(clips[-1], source, clips[-1].latent(strides)[0], first))
        first += len(source)
    return found


def _turns(found: Sequence[Bucket], mix: Mix) -> list[float]:
    """Each bucket's number of batches, images and videos brought to their shares of all."""
    turns = [len(bucket.source) / mix.batch_size(bucket.clip) for bucket in found]
    image = [bucket.clip.frames == 1 for bucket in found]
    images = sum(turn for turn, is_image in zip(turns, image, strict=True) if is_image)
    if mix.image_share < 0 or images in (0, sum(turns)):
        return turns
    shares = {True: mix.image_share / images, False: (1 - mix.image_share) / (sum(turns) - images)}
    return [turn * shares[is_image] for turn, is_image in zip(turns, image, strict=True)]


def _load(bucket: Bucket, index: int, text_tokens: int, mix: Mix) -> Record:
    record = parse(bucket.source[index])
    states, text_mask = pad([record["text_states"]], text_tokens)
    latents = record["latents"]
    loaded = {"text": states[0], "text_mask": text_mask[0], "record": np.int64(bucket.first + index)}
    if not mix.pad_durations:
        return {"latents": latents, **loaded}
    missing = bucket.latent_frames - len(latents)
    padded = np.pad(latents, [(0, missing), (0, 0), (0, 0), (0, 0)])
    mask = np.arange(bucket.latent_frames)[:, None, None] < np.full(latents.shape[1:3], len(latents))
    return {"latents": padded, "latent_mask": mask, **loaded}
