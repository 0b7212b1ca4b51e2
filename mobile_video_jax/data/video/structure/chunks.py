"""Elements that begin with their kind and size: boxes of mp4, chunks of AVI, objects of ASF (wmv), tags of FLV."""

import re
import struct
from collections.abc import Iterator

from mobile_video_jax.data.video.structure.buffer import Buffer

UNSTATED = 0xFFFF0000  # RIFF sizes from here on, and 0, are left by writers that did not know them
AVI_CHUNKS = (b"RIFF", b"LIST", b"JUNK", b"idx1")
MOVIE_CHUNK = re.compile(rb"\d\d[a-z]{2}|ix\d\d")  # of a stream's number, or its index
ASF_HEADER, ASF_DATA = bytes.fromhex("3026b2758e66cf11"), bytes.fromhex("3626b2758e66cf11")
ASF_PROPERTIES, ASF_PACKET_LENGTH = bytes.fromhex("a1dcab8c47a9cf11"), 92  # where in them a packet's length is
ASF_DATA_HEADER = 50  # bytes before the first packet
FLV_TAGS = (8, 9, 18)  # sound, video, script


def mov_ends(data: Buffer) -> Iterator[int]:
    """Ends of the boxes that describe samples, and in fragments of the samples; an index finds others."""
    offset, fragments = 0, False
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, offset + 8)
        if length < 8:  # 0 is a last box without a size
            return
        offset += length
        fragments |= kind == b"moof"
        if kind in (b"moov", b"moof") or (fragments and kind == b"mdat"):
            yield offset


def avi_ends(data: Buffer) -> Iterator[int]:
    """Ends of chunks, those of LIST movi one by one, in RIFF forms, of which large files have several."""
    offset, form_end = 0, 0
    while offset + 12 <= len(data):
        kind, length, form = struct.unpack_from("<4sI4s", data, offset)
        stated, body = 0 < length < UNSTATED, offset + 8
        if (kind not in AVI_CHUNKS and not MOVIE_CHUNK.fullmatch(kind)) or (offset >= form_end and kind != b"RIFF"):
            return
        if kind == b"RIFF":
            form_end = offset + length if stated else len(data)  # some writers count the 8 bytes of the header as well
            yield form_end
            offset += 12
        elif kind == b"LIST" and form in (b"movi", b"rec "):
            yield body + length if stated else body
            offset += 12
        else:
            yield body + length
            offset = body + length + length % 2


def asf_ends(data: Buffer) -> Iterator[int]:
    """Ends of the header and the data; of a live recording, which states no sizes, of the last packet."""
    offset = 0
    while data[offset : offset + 8] in (ASF_HEADER, ASF_DATA):
        length = int.from_bytes(data[offset + 16 : offset + 24], "little")
        if length <= ASF_DATA_HEADER:
            yield from _last_asf_packet(data, offset + ASF_DATA_HEADER)
            return
        offset += length
        yield offset


def _last_asf_packet(data: Buffer, start: int) -> Iterator[int]:
    place = data.find(ASF_PROPERTIES) + ASF_PACKET_LENGTH
    length = int.from_bytes(data[place : place + 4], "little")
    if place >= ASF_PACKET_LENGTH and 0 < length < len(data) - start:
        last = start + (len(data) - 1 - start) // length * length
        if data[last] == data[start]:  # the flags that begin each packet
            yield last + length


def flv_ends(data: Buffer) -> Iterator[int]:
    """Ends of tags, and of the size that follows each."""
    offset = int.from_bytes(data[5:9]) + 4
    while offset < len(data) and data[offset] in FLV_TAGS:
        yield offset + 11
        offset += 11 + int.from_bytes(data[offset + 1 : offset + 4])
        yield offset
        if offset < len(data):
            yield offset + 4
        offset += 4
