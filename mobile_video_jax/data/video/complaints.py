"""Damage of which FFmpeg speaks in its log alone, while it returns frames as if they were sound."""

import contextlib
import functools
import logging
import re
from collections.abc import Iterator

import av.logging

from mobile_video_jax.data.video.container import UnreadableVideo

# By decoder or demuxer. Of much else that they call an error the frames are sound.
DAMAGE = {
    "dvvideo": re.compile("AC EOB marker is absent|Concealing bitstream errors"),
    "ffv1": re.compile("slice CRC mismatch"),
    "gif": re.compile("LZW decode failed"),
    "hevc": re.compile("mismatching checksum|cu_qp_delta .* outside the valid range|CABAC_MAX_BIN"),
    "mjpeg": re.compile("overread|huffman table decode error|error count|error y="),
    "ogg": re.compile("CRC mismatch"),
}


@contextlib.contextmanager
def complaints_heard() -> Iterator[None]:
    """Raises UnreadableVideo at the end of the block if FFmpeg has told of damage in it, in this thread."""
    _listen()
    with av.logging.Capture() as messages:
        yield
    for _, speaker, message in messages:
        if speaker in DAMAGE and DAMAGE[speaker].search(message):
            raise UnreadableVideo(f"damaged: {message.strip()}")


@functools.cache
def _listen() -> None:
    """Makes PyAV take what FFmpeg says; outside of captures it is dropped, as by default."""
    logging.getLogger("libav").setLevel(logging.CRITICAL + 1)
    av.logging.set_skip_repeated(False)  # or a second file with the same damage would pass
    av.logging.set_level(av.logging.ERROR)
