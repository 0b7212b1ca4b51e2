"""A prepared data set: a folder with a TFDS data set in ArrayRecord shards and a manifest that says what it holds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from mobile_video_jax.core.errors import UserError

MANIFEST = "manifest.json"
Manifest = dict[str, Any]


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
