"""Jobs of several processes on this machine, each with devices of its own."""

import socket
from collections.abc import Sequence

from tests.commands import Finished, Started, start


def start_job(arguments: Sequence[str], *, processes: int, devices: int = 1, join: bool = True) -> list[Started]:
    """Starts `python -m arguments` in so many processes, which with `join` find each other on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    shared = {
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": str(processes),
        "JAX_HEARTBEAT_SECONDS": "10",
    }
    flags = ["--distributed"] if join else []
    return [
        start(*arguments, *flags, devices=devices, environment={**shared, "JAX_PROCESS_ID": str(index)})
        for index in range(processes)
    ]


def finish_job(job: Sequence[Started], timeout: float = 240) -> list[Finished]:
    """What each process left, which are all gone afterwards."""
    return [process.finish(timeout) for process in job]
