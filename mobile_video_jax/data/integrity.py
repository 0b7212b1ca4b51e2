"""Integrity of a data set: its files against its manifest."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import file_bytes

VERIFIED = 2**28  # bytes of a set that is read and compared whenever it is opened; records check themselves as well


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(folder: Path, sizes: Mapping[str, int], digests: Mapping[str, str], remedy: str) -> None:
    """Compares sizes, and digests where the files are few, each file once. Raises UserError that names the first."""
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing, so the data set is damaged: {remedy}")
        if (actual := file_bytes(path)) != size:
            raise UserError(f"{path} is damaged: it has {actual} bytes, {size} were written: {remedy}")
    if sum(sizes.values()) <= VERIFIED:
        for name, digest in digests.items():
            if file_digest(folder / name) != digest:
                raise UserError(f"{folder / name} is damaged, its bytes have changed: {remedy}")
