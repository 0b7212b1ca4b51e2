"""A prepared data set: a folder with a TFDS data set in ArrayRecord shards and a manifest that says what it holds."""

import contextlib
import dataclasses
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing, write_json
from mobile_video_jax.data.folder_scan import Rejection
from mobile_video_jax.data.sources import Built, Source, TooManyRejected, find_source
from mobile_video_jax.data.video_folder import SPLITS

MANIFEST = "manifest.json"
REJECTED = "rejected.jsonl"
Manifest = dict[str, Any]


def prepare(source: str, out: Path, **options: Any) -> dict[str, Any]:
    """Makes the data set `out` from a source and returns {accepted, rejected, shards, out}.

    `source` is "moving_shapes", "sample_clips" or a folder of videos with captions.jsonl; the options are the fields
    of its class in sources.py. `out` appears whole or not at all; one made earlier from the same is left as it is.
    Raises UserError for bad options, for an `out` that holds something else, and when too much of a folder is
    rejected; the reasons are then in `out`.rejected.jsonl.
    """
    chosen = find_source(source, options)
    recipe = _recipe(source, chosen)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        manifest = _same(out, recipe)
    else:
        manifest = _build(chosen, recipe, out)
    return {**{key: manifest[key] for key in ("accepted", "rejected", "shards")}, "out": str(out)}


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared data set. Raises UserError when the folder is none, or is damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder} is no data set: make one with python -m launch.prepare_data --source=DIR_OR_NAME --out={folder}"
        ) from None
    except ValueError as error:
        raise UserError(f"{folder / MANIFEST} is damaged ({error}): remove {folder} and prepare it again") from None
    if not isinstance(manifest, dict) or manifest.get("kind") != "video":
        raise UserError(f"{folder} holds no videos: name a folder that launch.prepare_data has made")
    return manifest


def open_split(folder: Path, split: str) -> tuple[Sequence[Any], Manifest]:
    """Random access to the records of a split, and the manifest.

    Raises UserError for an unknown or empty split and for shards that are missing or cut short.
    """
    manifest = read_manifest(folder)
    if split not in manifest["splits"]:
        raise UserError(f"{folder} has no split '{split}'; it has {', '.join(manifest['splits'])}")
    if not manifest["splits"][split]:
        raise UserError(f"{folder} has no clips in {split}; it has {manifest['splits']}")
    for name, size in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise UserError(f"{path} is damaged: remove {folder} and prepare it again")
    builder = tfds.builder_from_directory(str(folder / manifest["name"] / manifest["version"]))
    return builder.as_data_source(split), manifest


def _recipe(name: str, source: Source) -> Manifest:
    """What the data set depends on, as JSON gives it back."""
    options = dataclasses.asdict(source)  # type: ignore[call-overload]
    path = options.pop("folder", None)
    if "clip" in options:
        options["clip"] = str(ClipShape(**options["clip"]))
    recipe = {"source": str(path or name), "options": options, "contents": source.contents()}
    return json.loads(json.dumps(recipe))


def _same(out: Path, recipe: Manifest) -> Manifest:
    """The manifest of `out` when it was made from the recipe."""
    if not (out / MANIFEST).is_file():
        raise UserError(f"{out} exists and is no data set: name another --out")
    manifest = read_manifest(out)
    for key, what in (("source", "another source"), ("options", "other options"), ("contents", "older files")):
        if manifest[key] != recipe[key]:
            raise UserError(f"{out} was made from {what}: remove it or name another --out")
    print(f"{out} is prepared already", file=sys.stderr)
    return manifest


def _build(source: Source, recipe: Manifest, out: Path) -> Manifest:
    reasons = out.with_name(f"{out.name}.{REJECTED}")
    try:
        with replacing(out) as temporary:
            temporary.mkdir()
            built = source.build(temporary)
            _write_rejected(temporary / REJECTED, built.rejections)
            manifest = {**recipe, **_manifest(built, temporary), **_of_shapes(recipe["options"])}
            write_json(temporary / MANIFEST, manifest)
    except TooManyRejected as error:
        _write_rejected(reasons, error.rejections)
        raise UserError(f"{error}: read {reasons}, mend the files or raise --max_rejected") from None
    reasons.unlink(missing_ok=True)  # of an earlier attempt
    return manifest


def _manifest(built: Built, folder: Path) -> Manifest:
    info = built.builder.info
    splits = {split: info.splits[split].num_examples if split in info.splits else 0 for split in SPLITS}
    shards = sorted(folder.rglob("*.array_record*"))
    return {
        "kind": "video",
        "name": info.name,
        "version": str(info.version),
        "splits": splits,
        "accepted": sum(splits.values()),
        "rejected": len(built.rejections),
        "shards": len(shards),
        "files": {str(path.relative_to(folder)): path.stat().st_size for path in shards},
        "shortest": built.shortest,
        "notes": [f"{split} is empty: too few clips" for split, size in splits.items() if not size],
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _of_shapes(options: Manifest) -> Manifest:
    """The clip and the world of drawn shapes; None for real videos, which fit any clip."""
    return {key: options.get(key) for key in ("clip", "world")}


def _write_rejected(path: Path, rejections: Sequence[Rejection]) -> None:
    with replacing(path) as temporary, contextlib.closing(temporary.open("w")) as file:
        file.writelines(json.dumps(dataclasses.asdict(rejection)) + "\n" for rejection in rejections)
