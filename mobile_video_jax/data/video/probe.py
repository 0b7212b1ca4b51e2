"""Facts of a video file, measured by decoding all of it."""

import base64
import dataclasses
from pathlib import Path
from typing import Any

import av
import numpy as np

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.data.video.complaints import complaints_heard
from mobile_video_jax.data.video.container import OpenVideo, UnreadableVideo, opened
from mobile_video_jax.data.video.index import FrameIndex, fingerprint
from mobile_video_jax.data.video.render import Renderer
from mobile_video_jax.data.video.scenes import CutDetector, compared_size, scene_starts
from mobile_video_jax.data.video.structure.buffer import small_as_bytes
from mobile_video_jax.data.video.structure.check import check_structure
from mobile_video_jax.data.video.timing import resampled

COMPLETE = 0.9  # share of the frames and of the seconds a container claims that must decode
THUMBNAIL = ClipShape(1, 8, 8)
SOON = 24  # frames that are decoded from the start sooner than sought
# Pixel formats that are rendered whatever the file says of their colours.
SHOWN_ALWAYS = ("yuv420p", "yuvj420p", "gray", "pal8", "rgb24", "bgr24", "rgba", "bgra", "argb", "gbrp")
UNSTATED = 1 << 30  # counts of frames from here on are left by writers of AVI that did not know them


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """Facts of a video: frames, pixels as shown, frames per second and seconds; and its packed FrameIndex."""

    frames: int
    height: int
    width: int
    fps: float
    seconds: float
    index: bytes = dataclasses.field(default=b"", repr=False)

    @property
    def scenes(self) -> tuple[int, ...]:
        """The frames that begin a scene, the first 0."""
        return tuple(FrameIndex.unpack(self.index).scenes.tolist()) if self.index else (0,)

    @property
    def longest(self) -> int:
        """Frames of the longest scene."""
        return int(np.diff(self.scenes, append=self.frames).max())

    @property
    def decoded(self) -> int:
        """Frames of the file: more than `frames` where it is faster than the rate it is resampled to."""
        index = FrameIndex.unpack(self.index)
        return index.entry + len(index.prints)

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it."""
        return dataclasses.asdict(self) | {"index": base64.b64encode(self.index).decode()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "VideoInfo":
        """Reads what `to_json` gave."""
        return cls(**values | {"index": base64.b64decode(values["index"])})


@dataclasses.dataclass
class _Decoded:
    """Notes of the decoded frames, in order."""

    height: int = 0
    width: int = 0
    times: list[int | None] = dataclasses.field(default_factory=list)
    prints: list[int] = dataclasses.field(default_factory=list)
    key_times: list[int] = dataclasses.field(default_factory=list)
    interlaced: bool = False
    last_duration: int = 0


def probe(source: bytes | Path, fps: float = 0.0, *, scenes: bool = False) -> VideoInfo:
    """Decodes a whole video and describes it, resampled by time to `fps` frames a second where that is not 0.

    With `scenes` cuts between scenes are found; without, all of it is one. Raises UnreadableVideo for anything that is
    no video, is damaged, stops before its end or cannot be shown, OSError when the file does not open.
    """
    source = small_as_bytes(source)
    with opened(source) as video:
        check_structure(source, video.container.format.name, video.stream.id)
        detector = CutDetector() if scenes else None
        with complaints_heard():
            decoded = _decode_all(video, detector)
        count, times = len(decoded.times), _rising(decoded.times)
        rate = float(video.stream.average_rate or video.stream.guessed_rate or 1)
        unit = float(video.stream.time_base or 0)
        starts, end = np.arange(count) / rate, count / rate
        if len(times):
            starts = times * unit
            rate = (count - 1) / float(starts[-1] - starts[0]) if count > 1 else rate
            end = float(starts[-1]) + (decoded.last_duration * unit or 1 / rate)
        _check_complete(video, count, float(starts[0]), end, 1 / rate)
    shown = resampled(starts, end, fps) if fps else np.arange(count, dtype=np.int32)
    prints, starts_of_scenes = (
        np.array(decoded.prints, np.uint32),
        scene_starts(detector.cuts if detector else [], shown),
    )
    index = FrameIndex(times, prints, shown, starts_of_scenes, count - len(prints), decoded.interlaced)
    rate = fps or rate
    return VideoInfo(len(shown), decoded.height, decoded.width, rate, len(shown) / rate, index.pack())


def _decode_all(video: OpenVideo, detector: CutDetector | None) -> _Decoded:
    decoded, renderer = _Decoded(), Renderer(video)
    try:
        for packet, frames in video.packets():
            if packet and packet.is_keyframe and packet.pts is not None:
                decoded.key_times.append(packet.pts)
            for frame in frames:
                _note(decoded, frame, renderer, detector)
    except av.FFmpegError as error:
        raise UnreadableVideo(f"damaged or truncated after {len(decoded.times)} frames: {error.strerror}") from error
    if not decoded.times:
        raise UnreadableVideo("it holds no frames")
    return decoded


def _note(decoded: _Decoded, frame: av.VideoFrame, renderer: Renderer, detector: CutDetector | None) -> None:
    if frame.is_corrupt:
        raise UnreadableVideo(f"damaged: frame {len(decoded.times)} is corrupt")
    if not decoded.times:
        decoded.height, decoded.width = renderer.size(frame)
        if frame.format.name not in SHOWN_ALWAYS:
            renderer.render(frame, THUMBNAIL)  # what cannot be shown is refused now
    if detector:
        detector.add(renderer.render(frame, compared_size(decoded.height, decoded.width)))
    time = frame.pts
    decoded.times.append(time)
    if decoded.prints or (len(decoded.times) > SOON and _after_second_key_frame(decoded, time)):
        decoded.prints.append(fingerprint(frame))
    decoded.interlaced |= frame.interlaced_frame
    decoded.last_duration = frame.duration


def _after_second_key_frame(decoded: _Decoded, time: int | None) -> bool:
    return time is not None and len(decoded.key_times) > 1 and time >= decoded.key_times[1]


def _rising(times: list[int | None]) -> np.ndarray:
    """The times, int64 [n], or none where one is missing or does not rise: those tell nothing about order."""
    if None in times:
        return np.zeros(0, np.int64)
    known = np.array(times, np.int64)
    return known if (known[1:] > known[:-1]).all() else known[:0]


def _check_complete(video: OpenVideo, frames: int, start: float, end: float, frame_seconds: float) -> None:
    """Raises UnreadableVideo where fewer frames or seconds decode than the container claims."""
    stream, container = video.stream, video.container
    if frames < COMPLETE * stream.frames and container.format.name.startswith("mov"):
        # An edit list hides some, as those that a cut without encoding leaves before its start.
        expected = stream.frames - sum(entry.is_discard for entry in stream.index_entries)
        if frames < COMPLETE * expected:
            raise UnreadableVideo(f"truncated: {frames} of {expected} frames decode")
    claimed = _claimed_seconds(video)
    if claimed > start > 0:  # Matroska counts from 0, whenever the first frame comes
        claimed -= start
    if end - start < COMPLETE * claimed - frame_seconds:
        raise UnreadableVideo(f"truncated: {end - start:.1f} of {claimed:.1f} seconds decode")


def _claimed_seconds(video: OpenVideo) -> float:
    stream, container = video.stream, video.container
    if container.format.name == "avi" and stream.frames and stream.time_base is not None:
        # FFmpeg brings the duration down to the bytes that are there.
        return stream.frames * float(stream.time_base) if stream.frames < UNSTATED else 0.0
    if stream.duration is not None and stream.time_base is not None:
        return stream.duration * float(stream.time_base)
    # Another stream, such as sound, may run longer than the pictures.
    alone = len(container.streams) == 1
    return (container.duration or 0) / av.time_base if alone else 0.0
