"""TFDS builder for clips of the shape world; it runs without TensorFlow."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.data.shapes.shape_world import draw
from mobile_video_jax.data.shapes.world import World

FRAMES_PER_SECOND = 8.0


class MovingShapes(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]  # its package has no types
    """Rendered clips with exact captions and attributes, `sizes` of them in each split.

    `data_dir` must be new or hold the same world, clip, sizes and seed: TFDS never rewrites a finished data set.
    The metadata of the data set holds the world, clip and seed that it was rendered with.
    """

    VERSION = tfds.core.Version("1.0.0")
    # We have no checksums; to look for them TFDS needs a package that it does not declare (tensorflow/datasets#11212).
    code_path = None

    def __init__(self, *, world: World, clip: ClipShape, sizes: Mapping[str, int], seed: int, data_dir: str) -> None:
        self._world, self._clip, self._seed = world, clip, seed
        # TFDS cannot read back a split without records, and so none is written.
        self._sizes = {split: size for split, size in sizes.items() if size}
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        text, clip = tfds.features.Text, self._clip
        features = {
            "id": text(),
            "video": tfds.features.Tensor(
                shape=(clip.frames, clip.height, clip.width, 3), dtype=np.uint8, encoding="zlib"
            ),
            "caption": text(),
            "fps": np.float32,
            "attributes": {
                "count": np.int32,
                "colour": text(),
                "shape": text(),
                "motion": text(),
                "background": text(),
            },
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(world=dataclasses.asdict(self._world), clip=str(clip), seed=self._seed),
            disable_shuffling=True,  # clips are independent already, and the order of the index is easier to follow
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split, size) for split, size in self._sizes.items()}

    def _generate_examples(self, split: str, size: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(size):
            sample = draw(self._world, self._clip, self._seed, index, split)
            yield (
                index,
                {
                    "id": f"{split}-{index:06}",
                    "video": sample.frames,
                    "caption": sample.caption,
                    "fps": FRAMES_PER_SECOND,
                    "attributes": dataclasses.asdict(sample.attributes),
                },
            )
