"""Video and image files of unknown origin: what they hold, clips cut from them, and small files to be watched."""

import contextlib
import dataclasses
import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.files import replacing

# A still image is a video of one frame.
EXTENSIONS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif", ".png", ".jpg", ".jpeg", ".webp")
# Demuxers that may read a file. Others, such as ffconcat and HLS, would open further files that the content names.
DEMUXERS = "mov,mp4,matroska,webm,avi,gif,png_pipe,jpeg_pipe,webp_pipe"
COMPLETE = 0.9  # share of the frames and of the seconds a container claims that must decode


class UnreadableVideo(ValueError):
    """The file is no video that we can decode; the message is the reason, in a few words."""


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a video holds: decoded frames, pixels as shown (after rotation), frames per second and seconds."""

    frames: int
    height: int
    width: int
    fps: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Crop:
    """The part of a video that fills a clip: it covers the clip `zoom` times and is cut at places in [0, 1]."""

    zoom: float = 1.0
    row: float = 0.5
    column: float = 0.5


CENTRE = Crop()


def probe(source: bytes | Path) -> VideoInfo:
    """Decodes the whole video and says what it holds.

    Raises UnreadableVideo for anything that is no video or stops before its end, OSError when the file does not open.
    """
    with _opened(source) as (container, stream):
        frames, times = 0, []
        try:
            for frame in container.decode(stream):
                if not frames:
                    upright = frame.rotation % 180 == 0
                    height, width = (frame.height, frame.width) if upright else (frame.width, frame.height)
                frames += 1
                if frame.time is not None:
                    times.append(frame.time)
        except av.FFmpegError as error:
            raise UnreadableVideo(f"damaged or truncated after {frames} frames: {error.strerror}") from error
        if not frames:
            raise UnreadableVideo("it holds no frames")
        fps = float(stream.average_rate or stream.guessed_rate or 1)
        if len(times) == frames > 1 and times[-1] > times[0]:
            fps = (frames - 1) / (times[-1] - times[0])
        seconds = frames / fps
        if frames < COMPLETE * stream.frames:
            raise UnreadableVideo(f"truncated: {frames} of {stream.frames} frames decode")
        claimed = _claimed_seconds(container, stream)
        if seconds < COMPLETE * claimed - 1 / fps:
            raise UnreadableVideo(f"truncated: {seconds:.1f} of {claimed:.1f} seconds decode")
        return VideoInfo(frames, height, width, fps, seconds)


def decode(data: bytes, clip: ClipShape, start: int = 0, crop: Crop = CENTRE) -> Frames:
    """Decodes `clip.frames` frames from frame `start` on, scaled to cover the clip and cropped: uint8 [t h w 3].

    A video smaller than the clip is scaled up. Raises UnreadableVideo when so many frames do not decode.
    """
    frames: list[np.ndarray] = []
    since = _time_of_frame(data, start) if start else None
    with _opened(data) as (container, stream):
        if since is not None:
            container.seek(since, stream=stream)
        for position, frame in enumerate(container.decode(stream)):
            # Seeking lands on a key frame before; where a file has no times we count from its beginning.
            due = position >= start if since is None else frame.pts is not None and frame.pts >= since
            if not due:
                continue
            frames.append(_fit(frame, clip, crop))
            if len(frames) == clip.frames:
                return np.stack(frames)
    raise UnreadableVideo(f"{clip.frames} frames from frame {start} on were asked for, {len(frames)} decode")


def mp4_bytes(frames: Frames, fps: float | int, scale: int = 1, crf: int = 18) -> bytes:
    """Encodes frames as H.264 in mp4, each pixel drawn as `scale` x `scale`; a lower `crf` loses less.

    Even sizes are written as yuv420p, which everything plays; odd ones as yuv444p, which keeps every pixel but which
    some players refuse: give an even `scale` for those.
    """
    frames = _enlarged(frames, scale)
    even = frames.shape[1] % 2 == 0 and frames.shape[2] % 2 == 0
    pictures = (av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames)
    pixels = "yuv420p" if even else "yuv444p"
    # In narrow frames mbtree reads memory that nothing has written: the same frames would give other files each time.
    options = {"crf": str(crf), "preset": "veryfast", "mbtree": "0"}
    return _encoded(pictures, frames, "mp4", "libx264", pixels, fps, options)


def gif_bytes(frames: Frames, fps: float | int, scale: int = 1) -> bytes:
    """Encodes frames as an endless gif with a palette made for them, each pixel drawn as `scale` x `scale`.

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


@contextlib.contextmanager
def _opened(source: bytes | Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a video by its content alone; whatever FFmpeg dislikes from there on becomes UnreadableVideo."""
    with contextlib.ExitStack() as stack:
        file = io.BytesIO(source) if isinstance(source, bytes) else stack.enter_context(source.open("rb"))
        try:
            # Titles in other encodings than UTF-8 are no reason to refuse a video.
            opened = av.open(file, "r", options={"format_whitelist": DEMUXERS}, metadata_errors="replace")
            container = stack.enter_context(opened)
            if not container.streams.video:
                raise UnreadableVideo("it holds no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise UnreadableVideo("its codec is unknown")
            stream.codec_context.thread_count = 1  # callers decode many files at once
            if container.format.name.endswith("_pipe"):
                # A JPEG that stops early would come with grey for the rest.
                stream.codec_context.options = {"err_detect": "explode"}
            yield container, stream
        except av.FFmpegError as error:
            raise UnreadableVideo(f"it does not decode: {error.strerror}") from error


def _claimed_seconds(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    # Another stream, such as sound, may run longer than the pictures.
    alone = len(container.streams) == 1
    return (container.duration or 0) / av.time_base if alone else 0.0


def _time_of_frame(data: bytes, index: int) -> int | None:
    """When frame `index` is shown, in the stream's own unit; None where a file does not tell.

    Packets are stored in decoding order and frames may last differently long, so that only a sorted list tells.
    """
    with _opened(data) as (container, stream):
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
    times = [packet.pts for packet in packets]
    if None in times or index >= len(times):
        return None
    return sorted(times)[index]  # type: ignore[type-var]


def _fit(frame: av.VideoFrame, clip: ClipShape, crop: Crop) -> np.ndarray:
    """Scales a frame to cover the clip, crops and turns it upright: uint8 [h w 3]."""
    turns = round(frame.rotation / 90) % 4  # counter-clockwise
    height, width = (frame.width, frame.height) if turns % 2 else (frame.height, frame.width)
    scale = max(clip.height / height, clip.width / width) * crop.zoom
    height, width = max(round(height * scale), clip.height), max(round(width * scale), clip.width)
    stored = (width, height) if turns % 2 else (height, width)
    small = frame.reformat(
        height=stored[0], width=stored[1], format="rgb24", interpolation=Interpolation.AREA, threads=1
    )
    pixels = np.rot90(small.to_ndarray(), turns)
    row, column = round((height - clip.height) * crop.row), round((width - clip.width) * crop.column)
    return pixels[row : row + clip.height, column : column + clip.width]


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
        stream = cast(VideoStream, container.add_stream(codec, rate=_rate(fps), options=options))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixels
        for picture in pictures:
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return file.getvalue()


def _paletted(frames: Frames, fps: float | int) -> Iterator[av.VideoFrame]:
    """Draws the frames with the 256 colours that suit them all best."""
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
