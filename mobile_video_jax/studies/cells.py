"""The cells of a study: each a folder with a result or a failure, run once, shared by several processes."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from mobile_video_jax.core.claim import claim
from mobile_video_jax.core.config import Config, plain
from mobile_video_jax.core.errors import Stopped, UserError
from mobile_video_jax.core.files import read_json, write_json
from mobile_video_jax.core.progress import duration, say
from mobile_video_jax.core.revision import git_revision
from mobile_video_jax.train.divergence import TrainingDiverged

SETTINGS, RESULT, FAILURE = "study.json", "result.json", "failure.json"
# Fields of a study that say which cells it has, and may change between two starts.
GRID = ("compressions", "objectives", "arms", "seeds", "blocks_kept", "repeats", "draws")


def open_study(study: Config, out: Path, *, worker: int, workers: int) -> None:
    """Stores what all cells of a study share in OUT/study.json, or checks that it is the same as before.

    Raises UserError where another study, or one of other settings, has cells in `out`, and for an unknown worker.
    """
    if not 0 <= worker < workers:
        raise UserError(f"worker {worker} of {workers}: name one from 0 to {workers - 1}")
    git_revision()  # of the code that runs, before it can change on disk
    shared = {key: value for key, value in plain(study).items() if key not in GRID}
    if (out / "cells").exists() and not (out / SETTINGS).exists():
        say(f"{out}: its cells are older than {SETTINGS} and are taken as of this study")
        write_json(out / SETTINGS, flatten_dict(shared, sep="."))
    claim(out, SETTINGS, flatten_dict(shared, sep="."), "study")


def run_cells(
    names: Sequence[str],
    out: Path,
    run: Callable[[str, Path], dict[str, Any]],
    *,
    worker: int = 0,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that have neither result nor failure; returns the results of all that have.

    Cell k belongs to worker k mod `workers`. `run` fills a cell's folder and returns its result. Where it fails, the
    error is written to the cell's folder and the other cells go on.
    """
    started = time.monotonic()
    mine = [name for name in names[worker::workers] if not _is_done(out / "cells" / name)]
    for done, name in enumerate(mine):
        remaining = duration((time.monotonic() - started) / done * (len(mine) - done)) if done else "not known yet"
        say(f"══ {name}: cell {done + 1} of {len(mine)}, left: {remaining}")
        folder = out / "cells" / name
        try:
            write_json(folder / RESULT, run(name, folder))
        except Exception as error:
            if isinstance(error, Stopped) and not isinstance(error, TrainingDiverged):
                raise  # asked to stop: the cell resumes
            say(f"══ {name} failed: {error}")
            write_json(folder / FAILURE, {"error": f"{type(error).__name__}: {error}", "commit": git_revision()})
    return finished(names, out)


def finished(names: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """The results of the cells that are finished."""
    return [read_json(path) for name in names if (path := out / "cells" / name / RESULT).exists()]


def failures(out: Path) -> dict[str, str]:
    """The error of each failed cell, by its name. A cell whose failure.json is removed runs again."""
    return {path.parent.name: read_json(path, "error")["error"] for path in sorted(out.glob(f"cells/*/{FAILURE}"))}


def share(prepare: Callable[[], object], ready: Callable[[], bool], *, worker: int) -> None:
    """Has worker 0 prepare what all cells need, while the others wait: two must not write one folder."""
    while worker > 0 and not ready():
        say(f"worker {worker}: waits for worker 0 to prepare what all cells share")
        time.sleep(5)
    if worker == 0:
        prepare()


def _is_done(cell: Path) -> bool:
    return (cell / RESULT).exists() or (cell / FAILURE).exists()
