"""The cells of a study: each a folder with a result, run once, shared by several processes."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json, write_json
from mobile_video_jax.core.progress import duration, say
from mobile_video_jax.core.revision import git_revision

RESULT = "result.json"


def run_cells(
    names: Sequence[str],
    out: Path,
    run: Callable[[str, Path], dict[str, Any]],
    *,
    worker: int = 0,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that have no result yet; returns the results of all that have.

    Cell k belongs to worker k mod `workers`. `run` fills a cell's folder and returns its result.
    """
    started = time.monotonic()
    mine = [name for name in names[worker::workers] if not _result(out, name).exists()]
    for done, name in enumerate(mine):
        remaining = duration((time.monotonic() - started) / done * (len(mine) - done)) if done else "not known yet"
        say(f"══ {name}: cell {done + 1} of {len(mine)}, left: {remaining}")
        write_json(_result(out, name), run(name, out / "cells" / name))
    return finished(names, out)


def finished(names: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """The results of the cells that are finished."""
    return [read_json(path) for name in names if (path := _result(out, name)).exists()]


def share(prepare: Callable[[], object], ready: Callable[[], bool], *, worker: int, workers: int) -> None:
    """Has worker 0 prepare what all cells need, while the others wait: two must not write one folder."""
    if not 0 <= worker < workers:
        raise UserError(f"worker {worker} of {workers}: name one from 0 to {workers - 1}")
    git_revision()  # of the code that runs, before it can change on disk
    while worker > 0 and not ready():
        say(f"worker {worker}: waits for worker 0 to prepare what all cells share")
        time.sleep(5)
    if worker == 0:
        prepare()


def _result(out: Path, name: str) -> Path:
    return out / "cells" / name / RESULT
