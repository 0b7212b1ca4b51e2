"""Clips out of video files: exactly the frames that decoding from the start gives, wherever seeking leads."""

import contextlib
import itertools
from collections.abc import Iterator

import av
import numpy as np
from jaxtyping import Integer

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.data.video.container import OpenVideo, UnreadableVideo, opened
from mobile_video_jax.data.video.deinterlace import NEIGHBOURS, deinterlaced
from mobile_video_jax.data.video.index import FrameIndex, fingerprint
from mobile_video_jax.data.video.render import CENTRE, Crop, Renderer

EARLIER = (0, 24, 240)  # frames before the wanted ones to which seeking is tried, before decoding from the start


class _OtherFrames(Exception):
    """Seeking did not lead to the frames of the index."""


def decode(
    data: bytes, clip: ClipShape, start: int = 0, crop: Crop = CENTRE, index: FrameIndex | None = None
) -> Frames:
    """Frames `start` to `start + clip.frames` of a video, scaled to cover the clip and cropped: uint8 [t h w 3].

    They are decoded from the start of the file, or, with its index, from where seeking leads if times and fingerprints
    prove that the same frames come. Raises UnreadableVideo when so many frames do not decode.
    """
    shown = np.arange(start, start + clip.frames) if index is None else index.shown[start : start + clip.frames]
    if len(shown) < clip.frames:
        raise UnreadableVideo(f"{clip.frames} frames from frame {start} on were asked for, {len(shown)} decode")
    margin = NEIGHBOURS if index is None or index.interlaced else 0
    first, last = max(int(shown[0]) - margin, 0), int(shown[-1]) + margin
    if index is not None:
        for target in _seek_targets(index, first):
            with contextlib.suppress(_OtherFrames, UnreadableVideo), opened(data) as video:
                return _clip(video, _sought(video, index, target, first, last), first, shown, clip, crop)
    with opened(data) as video:
        return _clip(video, itertools.islice(video.frames(), first, last + 1), first, shown, clip, crop)


def _seek_targets(index: FrameIndex, first: int) -> list[int]:
    """The times to seek to for decoded frame `first`; none where the index could not prove what comes."""
    if not len(index.times) or first < index.entry:
        return []
    return [int(index.times[first - earlier]) for earlier in EARLIER if first > earlier]


def _sought(video: OpenVideo, index: FrameIndex, target: int, first: int, last: int) -> Iterator[av.VideoFrame]:
    """Decoded frames `first` to `last` after seeking. Raises _OtherFrames where the index does not prove that."""
    video.seek(target)
    expected, last = first, min(last, len(index.times) - 1)
    for frame in video.frames():
        number = _number(index, frame)
        if number < first:
            continue
        if number != expected or fingerprint(frame) != index.prints[number - index.entry]:
            raise _OtherFrames
        yield frame
        expected += 1
        if expected > last:
            return
    raise _OtherFrames


def _number(index: FrameIndex, frame: av.VideoFrame) -> int:
    """The decoded frame of that time. Raises _OtherFrames where there is none."""
    number = int(np.searchsorted(index.times, frame.pts)) if frame.pts is not None else len(index.times)
    if number == len(index.times) or index.times[number] != frame.pts:
        raise _OtherFrames
    return number


def _clip(
    video: OpenVideo,
    frames: Iterator[av.VideoFrame],
    first: int,
    shown: Integer[np.ndarray, "t"],
    clip: ClipShape,
    crop: Crop,
) -> Frames:
    """The clip that shows decoded frames `shown`, of `frames` that begin with number `first`."""
    renderer, rendered = Renderer(video), []
    for number, frame in enumerate(deinterlaced(frames), first):
        if repeats := int(np.count_nonzero(shown == number)):
            rendered += [renderer.render(frame, clip, crop)] * repeats
        if len(rendered) == len(shown):
            return np.stack(rendered)
    raise UnreadableVideo(f"{len(shown)} frames from frame {shown[0]} on were asked for, {len(rendered)} decode")
