"""TFDS builder for a folder of captioned videos: records hold the encoded files as they are."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mobile_video_jax.data.prepare.folder_scan import Clip

SPLITS = ("train", "validation", "test")


class VideoFolder(tfds.core.GeneratorBasedBuilder):
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
    """What a record holds."""
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
        "encoded": clip.path.read_bytes(),
        "caption": clip.caption,
        **dataclasses.asdict(clip.info),
    }


def split_by_name(clips: Sequence[Clip], validation: float, test: float) -> dict[str, list[Clip]]:
    """Sends about the given shares of the clips to validation and test, and never leaves train empty.

    A clip's split depends on its name alone, so that it stays there when others come or go.
    """
    splits: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for clip in clips:
        place = _place(clip)
        splits["test" if place < test else "validation" if place < test + validation else "train"].append(clip)
    if clips and not splits["train"]:
        last = max(clips, key=_place)
        for chosen in splits.values():
            if last in chosen:
                chosen.remove(last)
        splits["train"].append(last)
    return splits


def _place(clip: Clip) -> float:
    """A number in [0, 1) that is the same for a name everywhere and always."""
    return int.from_bytes(hashlib.sha256(clip.id.encode()).digest()[:6]) / 2**48
