"""Batches from processes of their own: the same ones, from any position on."""

import itertools

import grain
import numpy as np
import pytest
from absl import flags

from mobile_video_jax.data.loader import load
from mobile_video_jax.latents.batches import Mix, latent_batches
from tests import tiny


def numbers(count: int = 24) -> grain.IterDataset:
    batches = grain.MapDataset.range(count).seed(0).shuffle().batch(2)
    return grain.experimental.ZipIterDataset([batches.to_iter_dataset(), batches.map(np.negative).to_iter_dataset()])


def drawn(iterator, count: int) -> list:
    return [[part.tolist() for part in batch] for batch in itertools.islice(iterator, count)]


@pytest.fixture(autouse=True)
def parsed_flags():
    flags.FLAGS.mark_as_parsed()  # as every command does; grain's workers read one


def test_processes_make_the_batches_of_threads_and_go_on_from_any_position():
    whole = drawn(load(numbers(), 0), 12)
    threads = load(numbers(), 0)
    drawn(threads, 5)
    position = threads.get_state()
    processes = load(numbers(), 2)
    processes.set_state(position)
    assert drawn(processes, 4) == whole[5:9]
    threads.set_state(processes.get_state())
    assert drawn(threads, 3) == whole[9:]
    processes.close()


def test_processes_that_were_not_asked_for_a_batch_close():
    load(numbers(), 2).close()


@pytest.mark.slow
def test_processes_read_a_data_set_as_threads_do(tmp_path):
    folder = tiny.latents(tmp_path)
    made = latent_batches([folder], "train", Mix(lambda clip: 4), text_tokens=12, seed=0, train=True, threads=2)
    iterator, expected = load(made, 3), [batch["record"] for batch in itertools.islice(made, 20)]
    iterator.set_state({"next_index": 7})
    np.testing.assert_array_equal([next(iterator)["record"] for _ in range(13)], expected[7:])
    iterator.close()
