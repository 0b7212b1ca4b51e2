"""Jobs of several processes, one per host: joining, the first process, barriers."""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from jax._src import distributed  # the job's coordinator, which has no public name
from jax.experimental import multihost_utils

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.lock import only_writer

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
HEARTBEAT = "JAX_HEARTBEAT_SECONDS"

T = TypeVar("T")
_CALLS = itertools.count()  # of `claimed`, equal in all processes


def join() -> None:
    """Joins the other processes of a job; call it before anything else touches a device.

    On a TPU pod, Slurm or Kubernetes JAX finds them by itself. Elsewhere environment variables give the address of the
    first process as HOST:PORT, the number of processes and the index of this one. A process without a heartbeat for
    JAX_HEARTBEAT_SECONDS (default 100) is considered dead, and the others exit. Raises UserError where there is no job.
    """
    try:
        numbers = {name: int(os.environ[name]) for name in (COUNT, INDEX) if name in os.environ}
        jax.distributed.initialize(
            coordinator_address=os.environ.get(ADDRESS),
            num_processes=numbers.get(COUNT),
            process_id=numbers.get(INDEX),
            heartbeat_timeout_seconds=int(os.environ.get(HEARTBEAT, "100")),
        )
    except (ValueError, TypeError) as error:
        raise UserError(
            f"no job to join ({error}): start on a TPU pod, Slurm or Kubernetes, or set {ADDRESS}=HOST:PORT, "
            f"{COUNT} and {INDEX}"
        ) from error


def is_first() -> bool:
    """True in the process that writes shared files."""
    return jax.process_index() == 0


def wait_for_all(reason: str) -> None:
    """Blocks until every process has reached this call."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(reason)


def to_hosts(array: jax.Array) -> np.ndarray:
    """The values of an array, in every process."""
    if not array.is_fully_addressable:
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def claimed(items: Sequence[T]) -> Iterator[T]:
    """Those of the items that fall to this process: each process takes the next one when it asks for another.

    The items and calls must be the same in all processes.
    """
    client = distributed.global_state.client
    if client is None:
        yield from items
        return
    counter = f"claimed/{next(_CALLS)}"
    while (index := client.key_value_increment(counter, 1) - 1) < len(items):
        yield items[index]


@contextlib.contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder within the block, see `only_writer`; the processes of a job are one writer.

    Raises UserError in each of them where a process outside the job holds it.
    """
    with contextlib.ExitStack() as stack:
        refusal = ""
        if is_first():
            try:
                stack.enter_context(only_writer(folder))
            except UserError as error:
                refusal = str(error)
        if refusal := from_first(refusal):
            raise UserError(refusal)
        yield


def from_first(text: str, limit: int = 1000) -> str:
    """The first process's text, of at most so many bytes, in every process."""
    if jax.process_count() == 1:
        return text
    encoded = np.frombuffer(text.encode()[:limit].ljust(limit, b"\0"), np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(encoded)).rstrip(b"\0").decode(errors="ignore")
