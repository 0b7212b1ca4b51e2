"""The encoded data set: normalised latents and text states, in ArrayRecord shards beside a manifest."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
import safetensors.numpy
from array_record.python.array_record_module import ArrayRecordWriter

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing, write_json
from mobile_video_jax.text.encoder import pad

MANIFEST = "manifest.json"
Record = dict[str, Any]


def shard_path(folder: Path, split: str, index: int, count: int) -> Path:
    """The file of one shard."""
    return folder / f"{split}-{index:05}-of-{count:05}.array_record"


def write_shard(path: Path, records: Sequence[Record]) -> None:
    """Writes records {latents, text_states, caption, id, attributes}, whole or not at all.

    A record is a safetensors blob: arrays in float16, the rest as JSON bytes. Nothing in it can run code.
    """
    with replacing(path) as temporary:
        writer = ArrayRecordWriter(str(temporary), "group_size:1")
        for record in records:
            info = {key: record[key] for key in ("caption", "id", "attributes")}
            blob = {
                "latents": record["latents"].astype(np.float16),
                "text_states": record["text_states"].astype(np.float16),
                "info": np.frombuffer(json.dumps(info).encode(), np.uint8),
            }
            writer.write(safetensors.numpy.save(blob))
        writer.close()


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest, which makes the data set complete: without one it cannot be opened."""
    write_json(folder / MANIFEST, {"kind": "latents", **manifest})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an encoded data set. Raises UserError where the folder is none or is not finished."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        raise UserError(
            f"{folder} is no finished encoded data set: run python -m launch.encode --out={folder}"
        ) from None
    except ValueError as error:
        raise UserError(f"{folder / MANIFEST} is damaged ({error}): encode the data set again") from None
    if manifest.get("kind") != "latents":
        raise UserError(f"{folder} holds videos, not latents: run python -m launch.encode --data={folder} first")
    return manifest


def open_source(folder: Path, split: str) -> grain.sources.ArrayRecordDataSource:
    """Random access to the raw records of a split. Raises UserError for an unknown or empty split."""
    splits = read_manifest(folder)["splits"]
    if not splits.get(split, {}).get("records"):
        raise UserError(f"{folder} has no {split} records; it has {splits}")
    count = splits[split]["shards"]
    return grain.sources.ArrayRecordDataSource([str(shard_path(folder, split, i, count)) for i in range(count)])


def parse(blob: bytes) -> Record:
    """Reads back what write_shard wrote; arrays come as float32."""
    arrays = safetensors.numpy.load(blob)
    info = json.loads(arrays["info"].tobytes())
    floats = {key: arrays[key].astype(np.float32) for key in ("latents", "text_states")}
    return {**floats, **info}


def latent_batches(
    folder: Path,
    split: str,
    *,
    batch_size: int,
    text_tokens: int,
    seed: int,
    train: bool,
    threads: int,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.IterDataset:
    """Batches {latents [b lt lh lw c], text [b s e], text_mask [b s], record [b]} of this process's share.

    Training shuffles globally and repeats for ever, in an order that depends on (seed, step) alone; evaluation
    goes once through the split in order. Captions of more than `text_tokens` tokens raise UserError.
    """
    source = open_source(folder, split)
    if len(source) < batch_size:
        raise UserError(f"{folder} has {len(source)} {split} records, fewer than one batch of {batch_size}")
    dataset = grain.MapDataset.range(len(source))
    if train:
        dataset = dataset.seed(seed).shuffle().repeat()

    def load(index: int) -> Record:
        record = parse(source[index])
        states, mask = pad([record["text_states"]], text_tokens)
        return {"latents": record["latents"], "text": states[0], "text_mask": mask[0], "record": np.int64(index)}

    dataset = dataset[process_index::process_count].map(load)
    dataset = dataset.batch(batch_size // process_count, drop_remainder=True)
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads))


def records(folder: Path, split: str) -> Iterator[Record]:
    """All records of a split in order."""
    source = open_source(folder, split)
    return (parse(source[i]) for i in range(len(source)))
