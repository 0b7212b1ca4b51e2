"""Small video files to be watched: mp4 and gif."""

import contextlib
import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import OutputContainer
from av.filter import Graph
from av.video.stream import VideoStream

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.files import replacing

# In narrow frames mbtree reads memory that nothing has written: the same frames would give other files each time.
X264 = {"crf": "18", "preset": "veryfast", "mbtree": "0"}


def mp4_bytes(frames: Frames, fps: float | int, scale: int = 1, crf: int = 18) -> bytes:
    """Encodes frames as H.264 in mp4, each pixel repeated as `scale` x `scale`; a lower `crf` loses less.

    Even sizes are written as yuv420p, which everything plays; odd ones as yuv444p, which keeps every pixel but which
    some players refuse: give an even `scale` for those.
    """
    frames = _enlarged(frames, scale)
    pictures = (av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames)
    return _encoded(pictures, frames, "mp4", "libx264", _pixels(frames), fps, X264 | {"crf": str(crf)})


def gif_bytes(frames: Frames, fps: float | int, scale: int = 1) -> bytes:
    """Encodes frames as an endless gif with a palette made for them, each pixel repeated as `scale` x `scale`.

    A gif counts time in hundredths of a second, so that the speed is only close to `fps`.
    """
    frames = _enlarged(frames, scale)
    return _encoded(_paletted(frames, fps), frames, "gif", "gif", "pal8", fps, {})


def write_mp4(path: Path, frames: Frames, fps: float | int, scale: int = 1) -> None:
    """Writes `mp4_bytes` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(mp4_bytes(frames, fps, scale))


def write_gif(path: Path, frames: Frames, fps: float | int, scale: int = 1) -> None:
    """Writes `gif_bytes` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(gif_bytes(frames, fps, scale))


class Mp4Writer:
    """Writes an mp4 file as its frames come, each pixel repeated as `scale` x `scale`.

    The file is fragmented: a player shows what is there while later frames are still to come.
    """

    def __init__(self, path: Path, fps: float | int, scale: int = 1):
        self._scale, self._fps = scale, fps
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
        self._container = av.open(str(path), "w", format="mp4", options=options)
        self._stream: VideoStream | None = None

    def add(self, frames: Frames) -> None:
        """Encodes the next frames."""
        frames = _enlarged(frames, self._scale)
        self._stream = self._stream or _video_stream(
            self._container, frames, "libx264", _pixels(frames), self._fps, X264
        )
        for frame in frames:
            self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def __enter__(self) -> "Mp4Writer":
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def _video_stream(
    container: OutputContainer, frames: Frames, codec: str, pixels: str, fps: float | int, options: dict[str, str]
) -> VideoStream:
    stream = cast(VideoStream, container.add_stream(codec, rate=_rate(fps), options=options))
    stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixels
    return stream


def _pixels(frames: Frames) -> str:
    """The pixel format of an mp4: every player shows yuv420p, which takes even sizes."""
    even = frames.shape[1] % 2 == 0 and frames.shape[2] % 2 == 0
    return "yuv420p" if even else "yuv444p"


def _enlarged(frames: Frames, scale: int) -> np.ndarray:
    return frames.repeat(scale, axis=1).repeat(scale, axis=2)


def _encoded(
    pictures: Iterable[av.VideoFrame],
    frames: Frames,
    container_format: str,
    codec: str,
    pixels: str,
    fps: float | int,
    options: dict[str, str],
) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        stream = _video_stream(container, frames, codec, pixels, fps, options)
        for picture in pictures:
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return file.getvalue()


def _paletted(frames: Frames, fps: float | int) -> Iterator[av.VideoFrame]:
    """Maps the frames to the 256 colours that suit them all best."""
    graph = Graph()
    rate, rgb = _rate(fps), av.VideoFormat("rgb24")
    source = graph.add_buffer(width=frames.shape[2], height=frames.shape[1], format=rgb, time_base=1 / rate)
    split, palette, draw, sink = (graph.add(name) for name in ("split", "palettegen", "paletteuse", "buffersink"))
    source.link_to(split)
    split.link_to(palette, 0)
    split.link_to(draw, 1, 0)
    palette.link_to(draw, 0, 1)
    draw.link_to(sink)
    graph.configure()
    for position, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts, picture.time_base = position, 1 / rate
        source.push(picture)
    source.push(None)
    with contextlib.suppress(av.EOFError):
        while True:
            yield cast(av.VideoFrame, sink.pull())


def _rate(fps: float | int) -> Fraction:
    return Fraction(fps).limit_denominator(1001)
