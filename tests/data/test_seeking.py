"""Clips from the middle of a file are the frames that decoding from its start gives."""

import dataclasses

import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.data.video.container import OpenVideo
from mobile_video_jax.data.video.decode import decode
from mobile_video_jax.data.video.index import FrameIndex
from mobile_video_jax.data.video.probe import probe
from tests.data.odd_videos import moving, seeking_files, x264

FILES = seeking_files()


def clip(data: bytes, start: int, count: int, index: FrameIndex | None = None) -> np.ndarray:
    return decode(data, ClipShape(count, 96, 128), start, index=index)


@pytest.fixture
def decoded_frames(monkeypatch) -> list:
    """Grows by one with every frame that is decoded."""
    frames, plain = [], OpenVideo.frames

    def counted(video: OpenVideo):
        for frame in plain(video):
            frames.append(frame.pts)
            yield frame

    monkeypatch.setattr(OpenVideo, "frames", counted)
    return frames


@pytest.mark.parametrize("name", FILES)
def test_every_clip_is_what_decoding_from_the_start_gives(name):
    data = FILES[name]
    info = probe(data)
    index, whole = FrameIndex.unpack(info.index), clip(data, 0, info.frames)
    assert info.frames == 45 and np.abs(whole.astype(int) - moving(45)).mean() < 8
    wrong = [
        (start, count)
        for count in (1, 9)
        for start in range(0, 45 - count + 1)
        if not np.array_equal(clip(data, start, count, index), whole[start : start + count])
    ]
    assert not wrong


def test_a_long_file_is_not_decoded_from_its_start(decoded_frames):
    data = x264("a.mp4", "keyint=8:min-keyint=8:bframes=2:scenecut=0", moving(120))
    index = FrameIndex.unpack(probe(data).index)
    del decoded_frames[:]
    clip(data, 100, 5, index)
    assert len(decoded_frames) < 16


def test_vp9_is_sought(decoded_frames):
    index = FrameIndex.unpack(probe(FILES["vp9.webm"]).index)
    del decoded_frames[:]
    clip(FILES["vp9.webm"], 40, 3, index)
    assert index.entry == 24 and len(decoded_frames) < 12


def test_frames_that_are_not_those_of_the_index_are_not_taken(decoded_frames):
    data = FILES["vp9.webm"]
    index = FrameIndex.unpack(probe(data).index)
    changed = dataclasses.replace(index, prints=index.prints + np.uint32(1))
    del decoded_frames[:]
    np.testing.assert_array_equal(clip(data, 40, 3, changed), clip(data, 40, 3))
    assert len(decoded_frames) > 2 * 43  # both from the start


def test_an_index_packs_and_unpacks():
    index = FrameIndex(
        times=np.arange(5) * 512 - 3,
        prints=np.array([2**32 - 1, 7], np.uint32),
        shown=np.array([0, 0, 2, 4], np.int32),
        scenes=np.array([0, 2], np.int32),
        entry=3,
        interlaced=True,
    )
    back = FrameIndex.unpack(index.pack())
    for field in dataclasses.fields(index):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(index, field.name))
