"""One rule for output folders: free, this command's own (to resume or finished), or something else's."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json, write_json


def is_free(out: Path) -> bool:
    """True where `out` does not exist or is an empty folder."""
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))


def check_free(out: Path, *, flag: str = "--out") -> None:
    """Raises UserError where `out` is a file or holds anything, for commands that write a whole folder at once."""
    if not is_free(out):
        raise UserError(f"{out} is not empty: name a new folder with {flag}")


def check_holds_only(out: Path, names: Collection[str], content: str, *, flag: str = "--out") -> None:
    """Raises UserError where `out` is a file or holds something else than `names`, the files of `content`."""
    if others := _others(out, names):
        raise UserError(f"{out} is not empty and holds no {content} ({others[0]}): name a new folder with {flag}")


def check_holds_some(out: Path, names: Collection[str], content: str) -> None:
    """Raises UserError where `out` is a file, or holds something but none of `names`, the first files of `content`."""
    others = _others(out)
    if others and not set(names) & set(others):
        raise UserError(f"{out} is not empty and holds no {content} ({others[0]}): name a new folder with --out")


def check_claim(
    out: Path,
    marker: str,
    inputs: Mapping[str, Any],
    content: str,
    renewed: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> None:
    """Raises UserError unless `out` is free or holds the JSON file `marker` with the same inputs.

    `renewed` makes today's inputs of those that an older version wrote.
    """
    others = _others(out)  # listed before the marker is looked for, which another process may write meanwhile
    if (out / marker).exists():
        before, now = renewed(read_json(out / marker)), json.loads(json.dumps(inputs))
        for key in {**now, **before}:
            if before.get(key) != now.get(key):
                raise UserError(f"{out} was made with another {key}: name another --out")
    elif others:
        raise UserError(f"{out} is not empty and holds no {content} ({others[0]}): name another --out")


def claim(out: Path, marker: str, inputs: Mapping[str, Any], content: str) -> None:
    """Writes `inputs` into the file `marker` of a free folder, or checks that the folder was made with the same.

    Raises UserError as check_claim does.
    """
    check_claim(out, marker, inputs, content)
    if not (out / marker).exists():
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / marker, inputs)


def _others(out: Path, names: Collection[str] = ()) -> list[str]:
    """The visible entries of `out` but `names`; hidden ones are unfinished files of a process that was stopped."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: name a folder")
    entries = sorted(path.name for path in out.iterdir()) if out.exists() else []
    return [name for name in entries if not name.startswith(".") and name not in names]
