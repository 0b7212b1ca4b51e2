"""A prepared data set: a folder with a TFDS data set in ArrayRecord shards and a manifest that describes it."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json
from mobile_video_jax.data.integrity import check_files
from mobile_video_jax.data.table import TABLE, Row, read_table

MANIFEST = "manifest.json"
Manifest = dict[str, Any]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared data set. Raises UserError when the folder is none, or is damaged."""
    manifest = read_json(
        folder / MANIFEST,
        missing=f"{folder} is no data set: make one with python -m launch.prepare_data --source=DIR_OR_NAME "
        f"--out={folder}",
        advice=f"remove {folder} and prepare it again",
    )
    if not isinstance(manifest, dict) or manifest.get("kind") != "video":
        raise UserError(f"{folder} holds no videos: name a folder that launch.prepare_data has made")
    return manifest


@dataclasses.dataclass(frozen=True)
class ClipSource:
    """A prepared data set that is opened once: its manifest, and what its splits hold."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> "ClipSource":
        """Raises UserError where the folder is no data set, and for shards that are missing or damaged."""
        manifest = read_manifest(folder)
        check_files(folder, manifest["files"], manifest.get("sha256", {}), f"remove {folder} and prepare it again")
        return cls(folder, manifest)

    @property
    def clip(self) -> ClipShape | None:
        """The one shape of all clips; None for videos, each of which has its own."""
        return ClipShape.parse(self.manifest["clip"]) if self.manifest["clip"] else None

    @property
    def sizes(self) -> dict[str, int]:
        """The number of records of each split that has some."""
        return {split: size for split, size in self.manifest["splits"].items() if size}

    def records(self, split: str) -> Sequence[Any]:
        """Random access to the records of a split. Raises UserError for one that is unknown or empty."""
        if split not in self.manifest["splits"]:
            raise UserError(f"{self.folder} has no split '{split}'; it has {', '.join(self.manifest['splits'])}")
        if split not in self.sizes:
            raise UserError(f"{self.folder} has no clips in {split}; it has {self.manifest['splits']}")
        location = self.folder / self.manifest["name"] / self.manifest["version"]
        records: Sequence[Any] = tfds.builder_from_directory(str(location)).as_data_source(split)
        return records

    def shapes(self, split: str) -> list[ClipShape]:
        """Frames that are one scene, height and width of every video of a split."""
        if self.clip:
            return [self.clip] * len(self.records(split))
        if rows := self.rows(split):
            return [row.shape for row in rows]
        keys = ("frames", "height", "width")  # of a set without a table, made by an older version
        return [ClipShape(*(int(record[key]) for key in keys)) for record in iter(self.records(split))]

    def rows(self, split: str) -> list[Row]:
        """Rows of the table for the records of a split; none where a set has none."""
        return self._table.get(split, [])

    @functools.cached_property
    def _table(self) -> dict[str, list[Row]]:
        return read_table(self.folder) if (self.folder / TABLE).exists() else {}


def open_split(folder: Path, split: str) -> tuple[Sequence[Any], Manifest]:
    """Random access to the records of a split, and the manifest. Raises UserError as ClipSource does."""
    source = ClipSource.open(folder)
    return source.records(split), source.manifest
