"""The TFDS data set of drawn clips: written and read back without TensorFlow."""

import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.data.shapes.moving_shapes import MovingShapes
from mobile_video_jax.data.shapes.shape_world import Attributes, draw
from mobile_video_jax.data.shapes.world import World

WORLD = World(counts=(1, 2), shapes=("circle", "cross"))
CLIP = ClipShape(5, 32, 40)
SEED = 7


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    sizes = {"train": 12, "validation": 0, "test": 3}
    shapes = MovingShapes(world=WORLD, clip=CLIP, sizes=sizes, seed=SEED, data_dir=str(tmp_path_factory.mktemp("data")))
    shapes.download_and_prepare()
    return shapes


def test_records_are_the_draws_in_order(builder):
    for split, size in (("train", 12), ("test", 3)):
        records = builder.as_data_source(split)
        assert len(records) == size
        for index, record in enumerate(records):
            sample = draw(WORLD, CLIP, SEED, index, split)
            assert record["id"].decode() == f"{split}-{index:06}"
            assert record["video"].dtype == np.uint8 and np.array_equal(record["video"], sample.frames)
            assert record["caption"].decode() == sample.caption
            assert record["fps"] == 8
            read = {name: x.decode() if isinstance(x, bytes) else x for name, x in record["attributes"].items()}
            assert Attributes(**read) == sample.attributes


def test_the_folder_alone_is_enough_to_read_it(builder):
    read = tfds.builder_from_directory(builder.data_path)
    assert {name: split.num_examples for name, split in read.info.splits.items()} == {"train": 12, "test": 3}
    assert read.as_data_source("train")[4]["id"] == b"train-000004"
    assert from_mapping(World, read.info.metadata["world"]) == WORLD
    assert (read.info.metadata["clip"], read.info.metadata["seed"]) == ("5x32x40", SEED)


def test_videos_lie_compressed_in_array_records(builder):
    assert len(list(builder.data_path.glob("*.array_record*"))) == 2
    sample = draw(WORLD, CLIP, SEED, 0, "train")
    record = {"id": "", "video": sample.frames, "caption": "", "fps": 8.0, "attributes": vars(sample.attributes)}
    assert len(builder.info.features.serialize_example(record)) < sample.frames.nbytes / 2


def test_tensorflow_is_not_needed(builder):
    assert "tensorflow" not in sys.modules
