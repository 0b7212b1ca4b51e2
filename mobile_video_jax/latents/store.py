"""The encoded data set: normalised latents and text states, in ArrayRecord shards beside a manifest."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
import safetensors.numpy
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import Float

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing, write_json

MANIFEST, EMPTY = "manifest.json", "empty_caption.npy"
Record = dict[str, Any]


def shard_path(folder: Path, split: str, clip: ClipShape, index: int, count: int) -> Path:
    """The file of one shard of the clips of one shape."""
    return folder / f"{split}-{clip}-{index:05}-of-{count:05}.array_record"


def write_shard(path: Path, records: Sequence[Record]) -> None:
    """Writes records {latents, text_states, caption, id, attributes}, whole or not at all, and a summary beside them.

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
    write_json(path.with_suffix(".json"), {"text_tokens": max(len(record["text_states"]) for record in records)})


def read_summary(path: Path) -> dict[str, Any] | None:
    """What write_shard says of a shard, {text_tokens: those of its longest caption}; None where it is not finished."""
    summary = path.with_suffix(".json")
    return json.loads(summary.read_text()) if path.exists() and summary.exists() else None


def write_empty_caption(folder: Path, state: Float[np.ndarray, "1 e"]) -> None:
    """Writes the state of a text without words, for encoders whose models know "no caption" by it."""
    with replacing(folder / EMPTY) as temporary, temporary.open("wb") as file:
        np.save(file, state[0], allow_pickle=False)


def read_empty_caption(folder: Path) -> Float[np.ndarray, "e"] | None:
    """The state that write_empty_caption left; None where there is none, and "no caption" is a state of zeros."""
    path = folder / EMPTY
    return np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) if path.exists() else None


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
    if missing := {"clips", "compression", "splits", "text_encoder", "text_tokens", "text_width"} - manifest.keys():
        raise UserError(f"{folder / MANIFEST} says nothing of {min(missing)}: encode the data set again")
    return manifest


def shards(folder: Path, split: str) -> dict[ClipShape, list[Path]]:
    """The files of a split by the shape of their clips. Raises UserError for an unknown or empty split."""
    splits = read_manifest(folder)["splits"]
    found = {}
    for clip, sizes in splits.get(split, {}).items():
        shape, count = ClipShape.parse(clip), sizes["shards"]
        if count:
            found[shape] = [shard_path(folder, split, shape, i, count) for i in range(count)]
    if not found:
        raise UserError(f"{folder} has no {split} records; it has {splits}")
    return found


def open_shards(paths: Sequence[Path]) -> grain.sources.ArrayRecordDataSource:
    """Random access to the raw records of some shards, one after the other."""
    return grain.sources.ArrayRecordDataSource([str(path) for path in paths])


def parse(blob: bytes) -> Record:
    """Reads back what write_shard wrote; arrays come as float32."""
    arrays = safetensors.numpy.load(blob)
    info = json.loads(arrays["info"].tobytes())
    floats = {key: arrays[key].astype(np.float32) for key in ("latents", "text_states")}
    return {**floats, **info}


def records(folder: Path, split: str) -> Iterator[Record]:
    """All records of a split, shape by shape, in order."""
    for paths in shards(folder, split).values():
        source = open_shards(paths)
        yield from (parse(source[i]) for i in range(len(source)))
