"""Elements of Matroska and WebM (RFC 8794, RFC 9559), with the checksums that some writers add to clusters."""

import zlib
from collections.abc import Iterator

from mobile_video_jax.data.video.container import UnreadableVideo
from mobile_video_jax.data.video.structure.buffer import Buffer

SEGMENT, CLUSTER, CRC_32 = 0x18538067, 0x1F43B675, b"\xbf\x84"
INFORMATION = {0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367}
TOP_LEVEL = {0x1A45DFA3, SEGMENT, CLUSTER, *INFORMATION, 0xEC, 0xBF}  # the last two may be anywhere: void, checksum
IN_CLUSTER = {0xE7, 0xA3, 0xA0, 0xAB, 0xA7, 0xAF, 0x5854}


def matroska_ends(data: Buffer) -> Iterator[int]:
    """Ends of elements, of a cluster's only where it states no size, as in live recordings."""
    offset, end, known = 0, len(data), TOP_LEVEL
    while offset < end and (header := _header(data, offset)) is not None:
        kind, start, length = header
        if kind not in known or (length is None and kind not in (SEGMENT, CLUSTER)):
            return
        offset = start if length is None or kind == SEGMENT else start + length
        if length is None:
            known = TOP_LEVEL | IN_CLUSTER if kind == CLUSTER else TOP_LEVEL
            continue
        yield start + length
        if kind == SEGMENT:
            end = start + length
        elif kind == CLUSTER:
            _check_cluster(data, start, offset)


def _header(data: Buffer, offset: int) -> tuple[int, int, int | None] | None:
    """Kind, start of the content and its length (None: not stated) of an element; None where there is none."""
    if not data[offset] >> 4:
        return None
    start = offset + 9 - data[offset].bit_length()
    if start >= len(data) or not data[start]:
        return None
    digits = 9 - data[start].bit_length()
    largest = (1 << 7 * digits) - 1
    length = int.from_bytes(data[start : start + digits]) & largest
    return int.from_bytes(data[offset:start]), start + digits, None if length == largest else length


def _check_cluster(data: Buffer, start: int, end: int) -> None:
    """Raises UnreadableVideo where a cluster has a checksum and it is that of other bytes."""
    if data[start : start + 2] == CRC_32:
        stated = int.from_bytes(data[start + 2 : start + 6], "little")
        with memoryview(data) as view, view[start + 6 : end] as cluster:
            if zlib.crc32(cluster) != stated:
                raise UnreadableVideo(f"damaged: bytes {start} to {end} are not those of their checksum")
