"""Videos of several scenes: no clip crosses a cut."""

import json
import sys

import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.clip_loader import ClipLoader, Window
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.data.video.probe import probe
from mobile_video_jax.latents.plan import EncodeOptions, plan_members
from tests.data.odd_videos import moving, x264

LENGTHS = {"red.mp4": (20, 14), "dark.mp4": (9, 4, 21)}  # frames of the scenes
CLIP = ClipShape(9, 24, 32)


def scenes(*lengths: int) -> np.ndarray:
    """Scenes of moving pictures; every second one with its colours swapped and darker."""
    parts = [moving(count) for count in lengths]
    return np.concatenate([part[..., ::-1] // 2 if i % 2 else part for i, part in enumerate(parts)])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    (root / "videos").mkdir()
    for name, lengths in LENGTHS.items():
        (root / "videos" / name).write_bytes(x264("a.mp4", "bframes=2", scenes(*lengths)))
    (root / "videos" / "cuts.mp4").write_bytes(x264("a.mp4", "bframes=2", scenes(8, 8, 8)))
    lines = [json.dumps({"file": name, "caption": "two scenes"}) for name in (*LENGTHS, "cuts.mp4")]
    (root / "videos" / "captions.jsonl").write_text("\n".join(lines))
    prepare(str(root / "videos"), root / "data", validation=0.0, test=0.0, min_frames=9, scenes=True)
    return root / "data"


def spans(lengths: tuple[int, ...]) -> list[range]:
    return [range(sum(lengths[:i]), sum(lengths[: i + 1])) for i in range(len(lengths))]


def test_cuts_are_found_and_a_video_without_a_scene_of_the_length_is_rejected(data):
    rows = {row.id: row.scenes for row in ClipSource.open(data).rows("train")}
    assert rows == {name: tuple(span[0] for span in spans(lengths)) for name, lengths in LENGTHS.items()}
    rejected = json.loads((data / "rejected.jsonl").read_text())
    assert rejected["file"] == "cuts.mp4" and "8 frames in its longest scene of the 9" in rejected["reason"]


def test_no_clip_that_trains_or_is_encoded_crosses_a_cut(data, monkeypatch):
    source, starts = ClipSource.open(data), []
    loader = ClipLoader(source, "train", CLIP)
    decode = lambda record, clip, start, crop: starts.append((record["id"].decode(), start)) or np.zeros((9, 24, 32, 3))
    monkeypatch.setattr("mobile_video_jax.data.clip_loader._cut", decode)
    for seed in range(200):
        loader.random(seed % 2, np.random.default_rng(seed))
    ids = [row.id for row in source.rows("train")]
    for options in (EncodeOptions(window_stride=1), EncodeOptions(clips_per_video=5)):
        windows = plan_members(source, [CLIP], options)["train"][CLIP]
        assert len(windows) == (32 if options.window_stride else 10)
        starts += [(ids[window.record], window.start) for window in windows]
    for number in range(2):
        loader.window(Window(number))  # the middle one
    for name, start in starts:
        assert any({start, start + 8} <= set(span) for span in spans(LENGTHS[name])), (name, start)
    possible = {(name, i) for name in LENGTHS for span in spans(LENGTHS[name]) for i in span[: max(len(span) - 8, 0)]}
    assert set(starts) == possible


def test_cuts_follow_the_frame_rate():
    data = x264("a.mp4", "bframes=0", scenes(20, 14))
    assert probe(data, scenes=True).scenes == (0, 20)
    assert probe(data, fps=12.5, scenes=True).scenes == (0, 10) and probe(data, 50.0, scenes=True).scenes == (0, 40)
    assert probe(data).scenes == (0,)


def test_without_the_detector_the_extra_is_named(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(UserError, match=r"PySceneDetect is missing: pip install -e '.\[scenes\]', or leave out"):
        prepare(str(data.parent / "videos"), tmp_path / "out", scenes=True)
