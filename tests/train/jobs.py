"""Jobs of several processes on this machine, each with devices of its own."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start_job(
    arguments: Sequence[str], *, processes: int, devices: int = 1, join: bool = True
) -> list[subprocess.Popen]:
    """Starts `python -m arguments` in so many processes, which with `join` find each other on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    shared = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_ADDRESS": address}
    shared["JAX_HEARTBEAT_SECONDS"] = "10"
    return [
        subprocess.Popen(
            [sys.executable, "-m", *arguments, *(["--distributed"] if join else [])],
            cwd=ROOT,
            env={**shared, "JAX_NUM_PROCESSES": str(processes), "JAX_PROCESS_ID": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(processes)
    ]


def finish_job(job: Sequence[subprocess.Popen], timeout: float = 240) -> list[tuple[int, str, str]]:
    """Status, stdout and stderr of each process, which are all gone afterwards."""
    try:
        said = [process.communicate(timeout=timeout) for process in job]
    finally:
        for process in job:
            process.kill()
    return [(process.returncode, out, err) for process, (out, err) in zip(job, said, strict=True)]
