"""TFDS builder for a folder of captioned videos: records hold the encoded files as they are."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mobile_video_jax.data.prepare.folder_scan import Clip


class VideoFolder(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]  # its package has no types
    """Encoded videos with captions, in the order that each split's clips are given in."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # nothing is downloaded; TFDS would look for checksums with a package it does not require

    def __init__(self, *, clips: Mapping[str, Sequence[Clip]], data_dir: str) -> None:
        # TFDS asks for the splits' generators long after the constructor, and writes no empty split.
        self._clips = {split: chosen for split, chosen in clips.items() if chosen}
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=features(), disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(clips) for split, clips in self._clips.items()}

    def _generate_examples(self, clips: Sequence[Clip]) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(map(record, clips))


def features() -> tfds.features.FeaturesDict:
    """The features of a record."""
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "encoded": tfds.features.Tensor(shape=(), dtype=np.object_),  # the file's bytes
            "caption": tfds.features.Text(),
            "fps": np.float32,
            "height": np.int32,
            "width": np.int32,
            "frames": np.int32,
            "seconds": np.float32,
            "index": tfds.features.Tensor(shape=(), dtype=np.object_),  # a packed FrameIndex
        }
    )


def record(clip: Clip) -> dict[str, Any]:
    """A clip with the bytes of its file."""
    return {
        "id": clip.id,
        "encoded": clip.file.read_bytes(),
        "caption": clip.caption,
        **dataclasses.asdict(clip.info),
    }
