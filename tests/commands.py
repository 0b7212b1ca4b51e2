"""Processes that start in a moment, as they are forked from one that has imported what all of them import.

That one is started once a test process and starts no backend itself, so a process may still choose its devices.
"""

import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["launch.cli", *(f"mobile_video_jax.stages.{name}" for name in ("ablate", "activations", "demo", "sample_folder"))]
)


@dataclass(frozen=True)
class Finished:
    """What a process left."""

    status: int
    out: str
    err: str


def run(module: str, *arguments: str, folder: Path = ROOT, timeout: float = 200) -> Finished:
    """Runs `python -m MODULE ARGUMENTS` in the folder, for so many seconds at most."""
    return _finish(timeout, _command, module, arguments, folder)


def call(function: Callable[..., None], *args: Any, devices: int) -> Finished:
    """Calls a function of a module where jax has so many CPU devices."""
    return _finish(200, _function, function, args, devices)


def _finish(timeout: float, target: Callable[..., None], *args: Any) -> Finished:
    with tempfile.TemporaryDirectory() as written:
        out, err = (Path(written) / name for name in ("out", "err"))
        process = FORKS.Process(target=_redirected, args=(out, err, target, *args))
        process.start()
        process.join(timeout)
        process.kill()
        process.join()
        return Finished(process.exitcode, out.read_text(), err.read_text())


def _redirected(out: Path, err: Path, target: Callable[..., None], *args: Any) -> None:
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
    target(*args)


def _command(module: str, arguments: tuple[str, ...], folder: Path) -> None:
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _function(function: Callable[..., None], args: tuple[Any, ...], devices: int) -> None:
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    function(*args)
