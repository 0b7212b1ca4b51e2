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
from mobile_video_jax.core.files import check_keys, read_json, replacing, write_json
from mobile_video_jax.core.storage import file_bytes
from mobile_video_jax.data.integrity import check_files, file_digest

MANIFEST, EMPTY = "manifest.json", "empty_caption.npy"
KEYS = ("clips", "compression", "splits", "text_encoder", "text_tokens", "text_width")  # of every manifest
AGAIN = "encode the data set again"
TAUGHT = "taught"  # of a record, a teacher's outputs; of a manifest, where they are from
Record = dict[str, Any]


def shard_path(folder: Path, split: str, clip: ClipShape, index: int, count: int) -> Path:
    """The file of one shard of the clips of one shape."""
    return folder / f"{split}-{clip}-{index:05}-of-{count:05}.array_record"


def write_shard(path: Path, records: Sequence[Record], keys: Sequence[str] = ()) -> None:
    """Writes records {latents, text_states, caption, id, attributes}, whole or not at all, and a summary beside them.

    A record is a safetensors blob: arrays in float16, the rest as JSON bytes. Nothing in it can run code. Arrays under
    "taught" are a teacher's (latents/taught.py), each in its own dtype. `keys` tell the records apart from those of
    another data set.
    """
    with replacing(path) as temporary:
        writer = ArrayRecordWriter(str(temporary), "group_size:1")
        for record in records:
            info = {key: record[key] for key in ("caption", "id", "attributes")}
            blob = {
                "latents": record["latents"].astype(np.float16),
                "text_states": record["text_states"].astype(np.float16),
                "info": np.frombuffer(json.dumps(info).encode(), np.uint8),
                **{f"{TAUGHT}.{name}": value for name, value in record.get(TAUGHT, {}).items()},
            }
            writer.write(safetensors.numpy.save(blob))
        writer.close()
        facts = {"bytes": temporary.stat().st_size, "sha256": file_digest(temporary)}
    tokens = max(len(record["text_states"]) for record in records)
    write_json(path.with_suffix(".json"), {"text_tokens": tokens, **facts, **({"keys": list(keys)} if keys else {})})


def read_summary(path: Path) -> dict[str, Any] | None:
    """Summary of a shard by write_shard: {text_tokens: those of its longest caption, bytes, sha256, keys}.

    None where the shard is not finished, or is not the one that was written.
    """
    summary = path.with_suffix(".json")
    if not (path.exists() and summary.exists()):
        return None
    facts: dict[str, Any] = json.loads(summary.read_text())
    size = file_bytes(path)
    return {"bytes": size, "sha256": None, **facts} if facts.get("bytes", size) == size else None


def read_shard_records(path: Path, keys: set[str]) -> dict[str, Record]:
    """The records with these keys in the shard of the same number, as it was before the data set changed."""
    number = path.name.rpartition("-of-")[0]
    for before in sorted(path.parent.glob(f"{number}-of-*.array_record")):
        if (summary := read_summary(before)) and (same := keys.intersection(summary.get("keys", ()))):
            blobs = open_shards([before])
            return {key: parse(blobs[i]) for i, key in enumerate(summary["keys"]) if key in same}
    return {}


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
    missing = f"{folder} is no finished encoded data set: run python -m launch.encode --out={folder}"
    manifest: dict[str, Any] = read_json(folder / MANIFEST, "kind", missing=missing, advice=AGAIN)
    if manifest["kind"] != "latents":
        raise UserError(f"{folder} holds videos, not latents: run python -m launch.encode --data={folder} first")
    check_keys(folder / MANIFEST, manifest, KEYS, AGAIN)
    return manifest


def shards(folder: Path, split: str) -> dict[ClipShape, list[Path]]:
    """The files of a split by the shape of their clips.

    Raises UserError for an unknown or empty split, and for files that are missing or damaged.
    """
    manifest = read_manifest(folder)
    paths = {}
    for clip, sizes in manifest["splits"].get(split, {}).items():
        shape, count = ClipShape.parse(clip), sizes["shards"]
        if count:
            paths[shape] = [shard_path(folder, split, shape, i, count) for i in range(count)]
    if not paths:
        raise UserError(f"{folder} has no {split} records; it has {manifest['splits']}")
    names = {path.name for files in paths.values() for path in files}
    sizes, digests = (
        {name: value for name, value in manifest.get(key, {}).items() if name in names and value}
        for key in ("files", "sha256")
    )
    check_files(folder, sizes, digests, f"encode the data set again into {folder}")
    return paths


def has_split(folder: Path, split: str) -> bool:
    """True where an encoded data set has records in a split."""
    return any(sizes["records"] for sizes in read_manifest(folder)["splits"].get(split, {}).values())


def open_shards(paths: Sequence[Path]) -> grain.sources.ArrayRecordDataSource:
    """Random access to the raw records of some shards, one after the other. Raises UserError for a damaged one."""
    try:
        return grain.sources.ArrayRecordDataSource([str(path) for path in paths])
    except (RuntimeError, ValueError) as error:
        raise UserError(f"a shard beside {paths[0]} is damaged ({error}): encode the data set again") from error


def parse(blob: bytes) -> Record:
    """Reads back what write_shard wrote; arrays come as float32."""
    arrays = safetensors.numpy.load(blob)
    info = json.loads(arrays["info"].tobytes())
    floats = {key: arrays[key].astype(np.float32) for key in ("latents", "text_states")}
    taught = {key.partition(".")[2]: value for key, value in arrays.items() if key.startswith(f"{TAUGHT}.")}
    return {**floats, **info, **({TAUGHT: taught} if taught else {})}


def records(folder: Path, split: str) -> Iterator[Record]:
    """All records of a split, shape by shape, in order."""
    for paths in shards(folder, split).values():
        source = open_shards(paths)
        yield from (parse(source[i]) for i in range(len(source)))
