"""Signs, in a container's structure, that a file stops before its end or has changed since it was written.

FFmpeg plays what is there. Containers state the sizes of their elements, and some a last element or checksums: a walk
follows them and returns where elements end, until it meets one that it does not know.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from mobile_video_jax.data.video.container import UnreadableVideo
from mobile_video_jax.data.video.structure.buffer import Buffer, buffer
from mobile_video_jax.data.video.structure.chunks import asf_ends, avi_ends, flv_ends, mov_ends
from mobile_video_jax.data.video.structure.matroska import matroska_ends
from mobile_video_jax.data.video.structure.mpeg import check_packets, program_ends, transport_ends
from mobile_video_jax.data.video.structure.ogg import ogg_ends
from mobile_video_jax.data.video.structure.pictures import gif_ends, jpeg_ends, png_ends

# By the name of FFmpeg's demuxer.
WALKS: dict[str, Callable[[Buffer], Iterator[int]]] = {
    "mov,mp4,m4a,3gp,3g2,mj2": mov_ends,
    "matroska,webm": matroska_ends,
    "avi": avi_ends,
    "ogg": ogg_ends,
    "flv": flv_ends,
    "asf": asf_ends,
    "mpegts": transport_ends,
    "mpeg": program_ends,
    "gif": gif_ends,
    "apng": png_ends,
    "jpeg_pipe": jpeg_ends,
}


def check_structure(source: bytes | Path, container: str, stream: int) -> None:
    """Raises UnreadableVideo where a file of that container (FFmpeg's name of it) is truncated, or its stream damaged.

    Sizes that the writer did not know, and whatever follows the last element, are accepted.
    """
    if container not in WALKS:
        return
    with buffer(source) as data:
        for end in WALKS[container](data):
            if end > len(data):
                raise UnreadableVideo(f"truncated: its last element ends at byte {end} of {len(data)}")
        if container == "mpegts":
            check_packets(data, stream)
