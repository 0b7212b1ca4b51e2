"""Checksums of a checkpoint's files, kept beside them: Orbax notices a cut file, but not a flipped byte."""

import json
import zlib
from pathlib import Path

from mobile_video_jax.core.storage import ObjectPath

NAME = "checksums.json"
CHUNK = 1 << 24  # bytes read at a time


def write_checksums(folder: Path) -> None:
    """Writes the CRC-32 and size in bytes of every file below a folder into FOLDER/checksums.json."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = {str(path.relative_to(folder)): [_crc32(path), path.stat().st_size] for path in files}
    (folder / NAME).write_text(json.dumps(sums, indent=1) + "\n")


def check_checksums(folder: Path) -> None:
    """Raises ValueError naming the first file that is not as it was written.

    Checkpoints of older code have no checksums; an object store keeps its own.
    """
    if isinstance(folder, ObjectPath) or not (folder / NAME).exists():
        return
    for name, (crc32, size) in json.loads((folder / NAME).read_text()).items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        if path.stat().st_size != size or _crc32(path) != crc32:
            raise ValueError(f"{name} is not as it was written")


def _crc32(path: Path) -> int:
    crc32 = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            crc32 = zlib.crc32(chunk, crc32)
    return crc32
