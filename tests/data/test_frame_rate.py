"""Videos of any rate resampled by time to one."""

import json

import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.data.video.timing import resampled
from tests.data.odd_videos import encoded, x264

SPEED = 24.0  # pixels a second


def bars(times: np.ndarray) -> np.ndarray:
    """A bar of 16 pixels that moves at SPEED, at some times in seconds: uint8 [t 96 128 3]."""
    x = np.arange(128)
    shown = [np.clip(8.5 - abs(x - 20 - SPEED * time), 0, 1) for time in times]
    return (30 + 200 * np.stack(shown)[:, None, :, None] * np.ones((96, 1, 3))).astype(np.uint8)


def places(clip: np.ndarray) -> np.ndarray:
    """The bar's middle in each frame, in pixels."""
    weights = clip.mean(axis=(1, 3)) - 30
    return weights @ np.arange(128) / weights.sum(axis=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("rates")
    bursts = np.cumsum([0] + [20, 20, 20, 100] * 12)  # milliseconds
    files = {
        "15.mp4": encoded("a.mp4", "libx264", bars(np.arange(30) / 15), rate=15),
        "60.mp4": encoded("a.mp4", "libx264", bars(np.arange(120) / 60), rate=60),
        "h264.avi": x264("a.avi", "bframes=2", bars(np.arange(50) / 25)),
        "bursts.mp4": x264("a.mp4", "bframes=0", bars(bursts / 1000), milliseconds=bursts.tolist()),
    }
    for name, data in files.items():
        (root / name).write_bytes(data)
    lines = [json.dumps({"file": name, "caption": "a bar"}) for name in files]
    (root / "captions.jsonl").write_text("\n".join(lines))
    return root


def clips(folder, frames: int) -> dict[str, np.ndarray]:
    items = captioned_clips(ClipSource.open(folder), "train", ClipShape(frames, 96, 128))
    return {item["id"]: item["video"] for item in items}


@pytest.mark.parametrize("fps", [12.0, 15.0, 30.0])
def test_what_moves_keeps_its_speed_whatever_the_rate_of_the_file(folder, tmp_path, fps, capsys):
    prepare(str(folder), tmp_path / "out", validation=0.0, test=0.0, fps=fps)
    slower = {12.0: "", 15.0: "", 30.0: "note: 3 videos are slower than 30 frames/s: they show frames twice"}[fps]
    assert [line for line in capsys.readouterr().err.splitlines() if "slower" in line] == ([slower] if slower else [])
    source = ClipSource.open(tmp_path / "out")
    assert source.manifest["fps"] == fps == source.manifest["options"]["fps"]
    assert all(row.fps == fps and abs(row.frames - 2 * fps) <= 0.05 * fps + 1 for row in source.rows("train"))
    for name, clip in clips(tmp_path / "out", int(1.5 * fps)).items():
        speed = np.polyfit(np.arange(len(clip)) / fps, places(clip), 1)[0]
        assert speed == pytest.approx(SPEED, rel=0.05), name


def test_without_a_rate_frames_stay_as_they_are_and_a_note_tells(folder, tmp_path, capsys):
    prepare(str(folder), tmp_path / "out", validation=0.0, test=0.0)
    assert "videos of 15 to 60 frames/s are mixed frame by frame: --fps=" in capsys.readouterr().err
    rows = {row.id: row.frames for row in ClipSource.open(tmp_path / "out").rows("train")}
    assert rows == {"15.mp4": 30, "60.mp4": 120, "h264.avi": 50, "bursts.mp4": 49}


def test_a_rate_that_is_none(folder, tmp_path):
    with pytest.raises(UserError, match="fps is a number of frames a second between 0 and 1000; got 0"):
        prepare(str(folder), tmp_path / "out", fps=0.0)


def test_the_rate_of_the_file_takes_every_frame_once():
    jitter = np.round(np.arange(90) / 29.97, 3)  # Matroska's milliseconds
    np.testing.assert_array_equal(resampled(jitter, 90 / 29.97, 29.97), np.arange(90))
    np.testing.assert_array_equal(resampled(np.array([0.0, 0.1]), 0.5, 10.0), [0, 1, 1, 1, 1])
