"""Processes that start in a moment, as they are forked from one that has imported what all of them import.

That one is started once a test process and starts no backend itself, so a process may still choose its devices.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "mobile_video_jax").rglob("*.py"))
    ]
)


class Finished(NamedTuple):
    """What a process left."""

    status: int
    out: str
    err: str


class Started:
    """A process that runs, and writes what it says to files."""

    def __init__(self, target: Callable[..., None], *args: Any):
        self.written = tempfile.TemporaryDirectory()
        self.streams = [Path(self.written.name) / name for name in ("out", "err")]
        self.process = FORKS.Process(target=_redirected, args=(*self.streams, target, *args))
        self.process.start()

    def wait_for_start(self) -> None:
        """Returns once signals are its own; an earlier one would be lost."""
        while not self.streams[1].exists():
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def finish(self, timeout: float = 200) -> Finished:
        """Waits for its end for so many seconds, then kills it."""
        with self.written:
            self.process.join(timeout)
            self.process.kill()
            self.process.join()
            return Finished(self.process.exitcode, *(path.read_text() for path in self.streams))


def start(module: str, *arguments: str, devices: int = 1, environment: dict[str, str] | None = None) -> Started:
    """Starts `python -m MODULE ARGUMENTS` where jax has so many CPU devices and the environment these variables."""
    return Started(_function, _command, (module, arguments, ROOT, environment or {}), devices)


def run(module: str, *arguments: str, folder: Path = ROOT, timeout: float = 200) -> Finished:
    """Runs `python -m MODULE ARGUMENTS` in the folder, for so many seconds at most."""
    return Started(_command, module, arguments, folder, {}).finish(timeout)


def call(function: Callable[..., None], *args: Any, devices: int) -> Finished:
    """Calls a function of a module where jax has so many CPU devices."""
    return Started(_function, function, args, devices).finish()


def _redirected(out: Path, err: Path, target: Callable[..., None], *args: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the shell that runs the tests ignores it
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
    target(*args)


def _command(module: str, arguments: tuple[str, ...], folder: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _function(function: Callable[..., None], args: tuple[Any, ...], devices: int) -> None:
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    function(*args)
