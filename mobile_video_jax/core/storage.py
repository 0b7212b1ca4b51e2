"""Locations of runs and data sets: on this machine's file system, or in a bucket of Google Cloud Storage."""

import itertools
import re
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import fsspec
from etils.epath.gpath import PosixGPath

from mobile_video_jax.core.errors import UserError

# Orbax 0.12 writes checkpoints to no other object store: it takes s3:// for a relative path.
SCHEME = "gs"
FOREIGN = r"\w+:/"  # also gs:/BUCKET, which would become a local folder named gs:


class ObjectPath(PosixGPath, Path):  # type: ignore[misc]  # its package has no types
    """A path in an object store, gs://BUCKET/NAME, with the methods of pathlib.Path.

    One write makes a whole object or none. There is no appending, no atomic renaming and no empty folder.
    """

    def absolute(self) -> "ObjectPath":
        return self

    def iterdir(self) -> Generator["ObjectPath"]:
        if self.exists():
            yield from super().iterdir()


def storage_path(text: str) -> Path:
    """The path a user names. Raises UserError for another scheme than gs:// and a bucket that cannot be read."""
    scheme, _, name = text.partition("://")
    if not re.match(FOREIGN, text):
        return Path(text)
    if scheme != SCHEME or not name:
        raise UserError(f"{text}: name a local path or {SCHEME}://BUCKET/NAME")
    # Other processes write to the same folders, so a listing is true for a moment only.
    fsspec.config.conf.setdefault(scheme, {})["use_listings_cache"] = False
    bucket = f"{scheme}://{name.partition('/')[0]}"
    try:
        fsspec.filesystem(scheme).ls(bucket)
    except ImportError:
        raise UserError(f"{text} needs gcsfs: pip install -e '.[gcs]'") from None
    except Exception as error:  # every store and its network layer has types of its own
        first_line = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{bucket} cannot be read ({first_line}): check its name and your credentials") from error
    return ObjectPath(text)


def local_path(text: str) -> Path:
    """The path a user names where only a local one will do. Raises UserError for another."""
    if re.match(FOREIGN, text):
        raise UserError(f"{text}: name a path of this machine here")
    return Path(text)


def upload(source: Path, target: ObjectPath) -> None:
    """Copies the files of a local folder; those of a folder follow those of the folders in it.

    So a manifest at the top, which says that the rest is there, comes last.
    """
    files = [path for path in source.rglob("*") if path.is_file()]
    depth = lambda path: -len(path.parts)
    store, _ = fsspec.url_to_fs(str(target))
    for _, level in itertools.groupby(sorted(files, key=depth), depth):
        paths = list(level)
        store.put(list(map(str, paths)), [str(target / path.relative_to(source)) for path in paths])


def copy_folder(source: Path, target: Path) -> None:
    """Copies a folder to a new local one."""
    if isinstance(source, ObjectPath):
        store, _ = fsspec.url_to_fs(str(source))
        store.get(str(source), str(target), recursive=True)
    else:
        shutil.copytree(source, target)


def remove_folder(folder: Path) -> None:
    """Removes a folder and all that is in it."""
    if isinstance(folder, ObjectPath):
        folder.rmtree()
    else:
        shutil.rmtree(folder)


def file_bytes(path: Path) -> int:
    """The bytes of a file, here or in an object store."""
    state: Any = path.stat()
    return int(state.length if isinstance(path, ObjectPath) else state.st_size)
