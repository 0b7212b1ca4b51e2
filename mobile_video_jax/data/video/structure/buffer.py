"""The bytes of a file, in memory or mapped into it."""

import contextlib
import mmap
from collections.abc import Iterator
from pathlib import Path

Buffer = bytes | mmap.mmap
SMALL = 1 << 20  # bytes of a file that is read at once: quicker than to open it more than once


def small_as_bytes(source: bytes | Path) -> bytes | Path:
    """The bytes of a small file, or the path of another. Raises OSError when the file does not open."""
    return source.read_bytes() if isinstance(source, Path) and source.stat().st_size <= SMALL else source


@contextlib.contextmanager
def buffer(source: bytes | Path) -> Iterator[Buffer]:
    """Opens a file's bytes to read; those of one that is not empty are mapped."""
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data
