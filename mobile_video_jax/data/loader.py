"""A stage's batches from processes of their own, for hosts where the threads of one do not keep up."""

import multiprocessing
import os
import signal
import threading
from typing import Any

import grain
import jax

BUFFERED = 2  # batches that each process holds ready


def load(batches: grain.IterDataset, processes: int) -> grain.DatasetIterator:
    """Iterates over batches that this process's threads make, or so many other processes with threads of their own.

    Order and positions are the same whatever their number, so that a run may resume with another. Batches must be made
    before they are read (MapDataset.batch, then to_iter_dataset), as every process takes every `processes`-th of them.
    """
    return _FromProcesses(batches, processes) if processes else iter(batches)


class _FromProcesses(grain.DatasetIterator):  # type: ignore[misc]  # its package has no types
    """Gives and takes positions as the batches' own iterator has them, with every index that of the next batch."""

    def __init__(self, batches: grain.IterDataset, processes: int):
        super().__init__()
        options = grain.MultiprocessingOptions(num_workers=processes, per_worker_buffer_size=BUFFERED)
        self._iterator, self._processes = iter(batches.mp_prefetch(options, _follow_parent)), processes
        self._first = iter(batches).get_state()
        self._next = 0

    def __next__(self) -> Any:
        batch = next(self._iterator)
        self._next += 1
        return batch

    def get_state(self) -> Any:
        return self._at(self._next)

    def set_state(self, state: Any) -> None:
        self._next, count = jax.tree.leaves(state)[0], self._processes
        # Process i makes batches i, i + count, …: so many of those before the next one.
        done = [self._at(-(-(self._next - i) // count)) for i in range(count)]
        place = {"next_index_in_cycle": self._next % count, "iterators_in_use_states": done}
        self._iterator.set_state(self._iterator.get_state() | place)

    def close(self) -> None:
        self._iterator.close()

    def _at(self, index: int) -> Any:
        return jax.tree.map(lambda _: index, self._first)


def _follow_parent(*_: int) -> None:
    """Leaves Ctrl-C, which every process of a terminal gets, to the parent; ends when that has ended, or was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
