"""The cells of a study: each a folder with a result or a failure, run once, shared by several processes."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from mobile_video_jax.core.claim import check_claim
from mobile_video_jax.core.config import Config, plain
from mobile_video_jax.core.errors import Stopped, UserError
from mobile_video_jax.core.files import read_json, write_json
from mobile_video_jax.core.progress import duration, say
from mobile_video_jax.core.revision import git_revision
from mobile_video_jax.parallel.distributed import is_first, one_writer, wait_for_all
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
    settings = flatten_dict(shared, sep=".")
    # Keys that came since the study was begun are taken as they are now.
    check_claim(out, SETTINGS, settings, "study", lambda before: settings | before)
    if not (out / SETTINGS).exists():
        write_json(out / SETTINGS, settings)


def check_kind(study: Any, out: Path) -> None:
    """Raises UserError where `out` holds a study of another kind, whose tables would be replaced by empty ones."""
    before = read_json(out / SETTINGS).get("kind") if (out / SETTINGS).exists() else None
    if before and before != study.kind:
        raise UserError(
            f"{out} holds a study of kind '{before}', not '{study.kind}': name that --study or another --out"
        )


def run_cells(
    names: Sequence[str],
    out: Path,
    run: Callable[[str, Path], dict[str, Any]],
    *,
    worker: int = 0,
    workers: int = 1,
    only: str = "",
) -> list[dict[str, Any]]:
    """Runs the cells that have neither result nor failure, nor another process; returns the results of all that have.

    Worker w of n begins with the cells of index w, w + n, … and goes on with the others that nobody has claimed; with
    `only` that cell alone runs. `run` fills a cell's folder and returns its result. Where it fails, the error is
    written to the cell's folder and the other cells go on.
    """
    started, done = time.monotonic(), 0
    mine = set(names[worker::workers])
    for name in [only] if only else sorted(names, key=lambda name: name not in mine):
        folder = out / "cells" / name
        with contextlib.suppress(Taken), claimed_cell(folder):
            if _is_done(folder):
                continue
            left = sum(not _is_done(out / "cells" / other) for other in names)
            remaining = duration((time.monotonic() - started) / done * left) if done else "not known yet"
            say(f"══ {name}: {left} cells to do, left: {remaining}")
            run_cell(name, folder, run)
            done += 1
    return finished(names, out)


class Taken(Exception):
    """Another process runs the cell."""


@contextlib.contextmanager
def claimed_cell(folder: Path) -> Iterator[None]:
    """Claims a cell within the block, by a lock that ends with its processes. Raises Taken where another has it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(one_writer(folder))
        except UserError as error:
            say(str(error))
            raise Taken from None
        yield


def run_cell(name: str, folder: Path, run: Callable[[str, Path], dict[str, Any]]) -> None:
    """Runs a cell and writes its result or, where it failed, its error.

    In a job of several processes the error is raised again, as the others cannot go on without this one, and is
    written only where another start would end in the same way.
    """
    try:
        result = run(name, folder)
    except Exception as error:
        if isinstance(error, Stopped) and not isinstance(error, TrainingDiverged):
            raise  # asked to stop: the cell resumes
        together = jax.process_count() > 1
        if not together or isinstance(error, UserError | TrainingDiverged):
            say(f"══ {name} failed: {error}")
            write_json(folder / FAILURE, {"error": f"{type(error).__name__}: {error}", "commit": git_revision()})
        if together:
            raise
    else:
        if is_first():
            write_json(folder / RESULT, result)
        wait_for_all("the cell's result is written")


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
