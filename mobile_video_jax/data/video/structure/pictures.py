"""Blocks of GIF, chunks of (animated) PNG and the end of JPEG."""

import struct
from collections.abc import Iterator

from mobile_video_jax.data.video.container import UnreadableVideo
from mobile_video_jax.data.video.structure.buffer import Buffer

IMAGE, EXTENSION, TRAILER = 0x2C, 0x21, 0x3B
SIGNATURE, CHUNK = 8, 12  # bytes of PNG's signature, and of a chunk beside its content
SCAN, END = b"\xff\xda", b"\xff\xd9"


def gif_ends(data: Buffer) -> Iterator[int]:
    """End of the trailer, after images and extensions; other bytes between them are skipped, as decoders do."""
    yield 14
    offset, block = 13 + _colour_table(data[10]), 0
    while offset < len(data) and (block := data[offset]) != TRAILER:
        if block in (IMAGE, EXTENSION):
            offset += 2
            if block == IMAGE:
                yield offset + 9
                offset += 9 + _colour_table(data[offset + 7])
            while offset < len(data) and data[offset]:
                offset += 1 + data[offset]
        offset += 1
    yield offset + 1


def _colour_table(flags: int) -> int:
    """Bytes of the colour table that a block's flags state."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def png_ends(data: Buffer) -> Iterator[int]:
    """Ends of the chunks up to IEND."""
    offset, kind = SIGNATURE, b""
    while kind != b"IEND":
        yield offset + CHUNK
        length, kind = struct.unpack_from(">I4s", data, offset)
        offset += CHUNK + length
    yield offset


def jpeg_ends(data: Buffer) -> Iterator[int]:
    """Nothing, but raises UnreadableVideo where no end marker follows the last scan."""
    if data.rfind(END) < data.rfind(SCAN):
        raise UnreadableVideo("truncated: it has no end marker")
    yield 0
