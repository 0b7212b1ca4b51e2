"""Batches from processes of their own: the same ones, from any position on."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import time

import grain
import numpy as np
import pytest
from absl import flags

from mobile_video_jax.data.loader import load
from mobile_video_jax.latents.batches import Mix, latent_batches
from tests import tiny
from tests.commands import call


def numbers(count: int = 24) -> grain.IterDataset:
    batches = grain.MapDataset.range(count).seed(0).shuffle().batch(2)
    return grain.experimental.ZipIterDataset([batches.to_iter_dataset(), batches.map(np.negative).to_iter_dataset()])


def read_batches(iterator, count: int) -> list:
    return [[part.tolist() for part in batch] for batch in itertools.islice(iterator, count)]


@pytest.fixture(autouse=True)
def parsed_flags():
    flags.FLAGS.mark_as_parsed()  # as every command does; grain's workers read one


def test_processes_make_the_batches_of_threads_and_go_on_from_any_position():
    whole = read_batches(load(numbers(), 0), 12)
    threads = load(numbers(), 0)
    read_batches(threads, 5)
    position = threads.get_state()
    processes = load(numbers(), 2)
    processes.set_state(position)
    assert read_batches(processes, 4) == whole[5:9]
    threads.set_state(processes.get_state())
    assert read_batches(threads, 3) == whole[9:]
    processes.close()


def test_processes_that_were_not_asked_for_a_batch_close():
    load(numbers(), 2).close()


def read_and_die() -> None:
    flags.FLAGS.mark_as_parsed()
    iterator = load(numbers(), 2)
    read_batches(iterator, 2)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGINT)
        print(process.pid, flush=True)
    read_batches(iterator, 10)
    os.kill(os.getpid(), signal.SIGKILL)


def test_processes_survive_ctrl_c_and_end_with_their_parent():
    done = call(read_and_die, devices=1)
    pids = done.out.split()
    assert done.status == -signal.SIGKILL and len(pids) == 2, done.err
    deadline = time.monotonic() + 30
    alive = lambda pid: subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True).stdout.strip(b"Z\n ")
    while any(map(alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_processes_read_a_data_set_as_threads_do(tmp_path):
    folder = tiny.latents(tmp_path)
    dataset = latent_batches([folder], "train", Mix(lambda clip: 4), text_tokens=12, seed=0, train=True, threads=2)
    iterator, expected = load(dataset, 3), [batch["record"] for batch in itertools.islice(dataset, 20)]
    iterator.set_state({"next_index": 7})
    np.testing.assert_array_equal([next(iterator)["record"] for _ in range(13)], expected[7:])
    iterator.close()
