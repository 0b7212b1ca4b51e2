"""Several processes, one a host: joining them, and what only the first of them does."""

import os

import jax
from jax.experimental import multihost_utils

from mobile_video_jax.core.errors import UserError

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
HEARTBEAT = "JAX_HEARTBEAT_SECONDS"


def join() -> None:
    """Joins the other processes of a job, before anything else touches a device.

    On a TPU pod, Slurm or Kubernetes JAX finds them by itself; elsewhere the environment names the first process as
    HOST:PORT, how many there are and which one this is. A process that says nothing for JAX_HEARTBEAT_SECONDS (100)
    counts as dead, and the others then leave as well. Raises UserError where no job is found.
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
    """Whether this process is the one that writes what all share."""
    return jax.process_index() == 0


def wait_for_all(reason: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(reason)
