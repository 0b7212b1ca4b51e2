"""The index of a video file: what decoding from the start gives, by which decoding from the middle is checked."""

import dataclasses
import functools
import zlib

import av
import numpy as np
from jaxtyping import Int32, Int64, Integer, UInt32

KINDS, HEADER = ("<i8", "<u4", "<i4", "<i4"), 6  # of the packed arrays; integers before them


@dataclasses.dataclass(frozen=True)
class FrameIndex:
    """The decoded frames of a file, and the frames of the video that is made of them.

    `times` are the decoded frames' times in the stream's unit; empty where they do not rise, and so do not tell one
    frame from another. `prints` are the fingerprints of the decoded frames from number `entry` on, which is not before
    the second key frame: what comes before is decoded from the start in any case. Frame i of the video shows decoded
    frame `shown[i]`; frames `scenes` begin a scene, the first is 0.
    """

    times: Int64[np.ndarray, "n"]
    prints: UInt32[np.ndarray, "p"]
    shown: Int32[np.ndarray, "m"]
    scenes: Int32[np.ndarray, "s"]
    entry: int
    interlaced: bool = False

    def pack(self) -> bytes:
        """As bytes, about four a decoded frame: all but the fingerprints compress to little."""
        arrays = (_steps(self.times), self.prints, _steps(self.shown), self.scenes)
        header = np.array([*map(len, arrays), self.entry, self.interlaced], "<i4")
        parts = (array.astype(kind).tobytes() for array, kind in zip(arrays, KINDS, strict=True))
        # In a window of 4 KiB: making one of 32 takes longer than to decode the smallest videos.
        packer = zlib.compressobj(1, zlib.DEFLATED, 12, 5)
        return packer.compress(header.tobytes() + b"".join(parts)) + packer.flush()

    @classmethod
    def unpack(cls, data: bytes) -> "FrameIndex":
        """Reads what `pack` wrote."""
        data = zlib.decompress(data)
        *sizes, entry, interlaced = np.frombuffer(data, "<i4", HEADER).tolist()
        arrays, offset = [], HEADER * 4
        for size, kind in zip(sizes, KINDS, strict=True):
            arrays.append(np.frombuffer(data, kind, size, offset))
            offset += arrays[-1].nbytes
        times, prints, shown, scenes = arrays
        return cls(times.cumsum(), prints, shown.cumsum(dtype=np.int32), scenes, entry, bool(interlaced))


def _steps(values: Integer[np.ndarray, "n"]) -> Integer[np.ndarray, "n"]:
    """Differences from one to the next, the first from 0."""
    steps = values.copy()
    steps[1:] -= values[:-1]
    return steps


def fingerprint(frame: av.VideoFrame) -> int:
    """A checksum (CRC-32) of the samples of a frame's first plane, luma or packed colours, without padding."""
    plane = frame.planes[0]
    stride, size = plane.line_size, -(-plane.width * _bits_of_first_plane(frame.format.name) // 8)
    if stride == size:
        return zlib.crc32(memoryview(plane))
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, stride)[:, :size]
    return zlib.crc32(np.ascontiguousarray(rows).data)


@functools.cache
def _bits_of_first_plane(name: str) -> int:
    """Bits of a pixel in the first plane of a pixel format."""
    pixel_format = av.VideoFormat(name, 16, 16)
    if not pixel_format.is_planar:
        return pixel_format.padded_bits_per_pixel
    return sum(-(-part.bits // 8) * 8 for part in pixel_format.components if part.plane == 0)
