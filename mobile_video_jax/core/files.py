"""Writing files so that a reader sees the whole file or none."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import ObjectPath, upload

PARTIAL = "partial"  # the suffix of what is not written yet to its end


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary local name to write a file or folder to, which becomes `path` when the block succeeds.

    On a disk by renaming, in an object store by one write of each file, a folder's own files last.
    """
    if isinstance(path, ObjectPath):
        with filling(path.parent) as folder:
            yield folder / path.name
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{PARTIAL}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Gives a local folder to add files to: `folder` itself, or one that is copied to it when the block succeeds."""
    if isinstance(folder, ObjectPath):
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
            upload(Path(temporary), folder)
    else:
        yield folder


def append(path: Path, text: str) -> None:
    """Adds text to the end of a file. An object store cannot, so there the whole object is written anew."""
    if isinstance(path, ObjectPath):
        path.write_text((path.read_text() if path.exists() else "") + text)
    else:
        with path.open("a") as file:
            file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")


def read_json(path: Path, *keys: str, missing: str = "", advice: str = "") -> Any:
    """Parses a JSON file, with `keys` an object that has these.

    Raises UserError: `missing` where there is no file; where it is damaged or says nothing of a key, a line that names
    the file and ends with `advice`.
    """
    ending = f": {advice}" if advice else ""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(missing or f"{path} does not exist: {path.parent} is no run directory") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}){ending}") from error
    check_keys(path, value, keys, advice)
    return value


def check_keys(path: Path, value: Any, keys: Collection[str], advice: str = "") -> None:
    """Raises UserError where a file's content is no object with these keys."""
    ending = f": {advice}" if advice else ""
    if keys and not isinstance(value, dict):
        raise UserError(f"{path} holds no settings{ending}")
    for key in keys:
        if key not in value:
            raise UserError(f"{path} says nothing of {key}{ending}")
