"""Packets of MPEG transport streams (ISO 13818-1) and program streams."""

from collections.abc import Iterator

import numpy as np

from mobile_video_jax.data.video.container import UnreadableVideo
from mobile_video_jax.data.video.structure.buffer import Buffer

LENGTHS, SYNC = (188, 192, 204), 0x47  # bytes of a transport packet; the byte that begins it
FAULTY, BEGINS, PAYLOAD, FIELDS = 0x80, 0x40, 0x10, 0x20  # flags of its second byte, and of its fourth
DISCONTINUITY = 0x80  # flag in its fields
PACK, PROGRAM_END = 0xBA, 0xB9  # start codes of program streams


def transport_ends(data: Buffer) -> Iterator[int]:
    """End of the last packet. One that does not begin like a packet is none."""
    start, length = _layout(data)
    last = start + (len(data) - 1 - start) // length * length
    if data[last] == SYNC:
        yield last + LENGTHS[0]


def check_packets(data: Buffer, pid: int) -> None:
    """Raises UnreadableVideo where packets of that stream are lost, by their counters, or marked as faulty.

    A jump where a picture begins is none: there one recording may have been put behind another.
    """
    start, length = _layout(data)
    count = (len(data) - start) // length
    # Copied, as a mapped file cannot be closed while an array is in use.
    packets = np.frombuffer(data, np.uint8, count * length, start).reshape(count, length)[:, :6].copy()
    packets = packets[((packets[:, 1] & 31).astype(int) << 8 | packets[:, 2]) == pid]
    if (packets[:, 1] & FAULTY).any():
        raise UnreadableVideo("damaged: packets of it are marked as faulty")
    packets = packets[packets[:, 3] & PAYLOAD > 0]
    announced = (packets[:, 3] & FIELDS > 0) & (packets[:, 4] > 0) & (packets[:, 5] & DISCONTINUITY > 0)
    harmless = announced | (packets[:, 1] & BEGINS > 0)
    if ((np.diff(packets[:, 3]) % 16 > 1) & ~harmless[1:]).any():
        raise UnreadableVideo("damaged: packets of it are lost")


def _layout(data: Buffer) -> tuple[int, int]:
    """Offset of the first packet's sync byte, and bytes from one to the next."""
    for length in LENGTHS:
        for start in range(min(length, len(data))):
            if all(data[place] == SYNC for place in range(start, min(start + 5 * length, len(data)), length)):
                return start, length
    raise UnreadableVideo("damaged: it does not begin like a transport stream")


def program_ends(data: Buffer) -> Iterator[int]:
    """Ends of packets."""
    offset = 0
    while offset + 14 <= len(data) and data[offset : offset + 3] == b"\0\0\1" and data[offset + 3] >= PROGRAM_END:
        code = data[offset + 3]
        if code == PROGRAM_END:
            offset += 4
        elif code == PACK:
            offset += 14 + (data[offset + 13] & 7) if data[offset + 4] >> 6 == 1 else 12  # MPEG-2 or MPEG-1
        else:
            offset += 6 + int.from_bytes(data[offset + 4 : offset + 6])
            yield offset
