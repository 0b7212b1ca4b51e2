"""A folder of ordinary, odd files becomes a data set, and trains."""

import json

import pytest

from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.train.loop import train
from tests import tiny
from tests.data.odd_videos import encoded, hdr, hidden, moving, seeking_files, song, stretched, two_tracks, woven


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Eight files that are taken, and three that are not."""
    videos = tmp_path_factory.mktemp("mixed") / "videos"
    videos.mkdir()
    files = {
        **seeking_files(),
        "wide.mp4": stretched("a.mp4", moving(20)[:, :, ::2], "2"),
        "tracks.mkv": two_tracks(),
        "fields.mp4": woven(),
        "alpha.webm": encoded("a.webm", "libvpx-vp9", hidden().repeat(4, 0), pixels="yuva420p"),
        "short.mp4": hdr("smpte2084"),
        "song.mp4": song(cover=True),
        "damaged.mp4": b"no video",
    }
    for name, content in files.items():
        (videos / name).write_bytes(content)
    lines = [json.dumps({"file": name, "caption": f"a video called {name}"}) for name in files]
    (videos / "captions.jsonl").write_text("\n".join(lines))
    return videos


@pytest.fixture(scope="module")
def data(videos):
    prepare(str(videos), videos.parent / "data", min_frames=9)
    return videos.parent / "data"


@pytest.mark.slow
def test_it_trains_a_few_steps(data, tmp_path):
    assert ClipSource.open(data).sizes["validation"] == 2  # fewer than a batch
    summary = train(VaeStage(tiny.vae_config(data, steps=3, eval_every=3)), tmp_path / "run")
    assert summary["step"] == 3


@pytest.mark.slow
def test_it_trains_200_steps(data, tmp_path):
    config = tiny.vae_config(data, steps=200, eval_every=50, log_every=50, checkpoint_every=100)
    assert train(VaeStage(config), tmp_path / "run")["step"] == 200


@pytest.mark.slow
def test_data_without_a_validation_split_train_and_nothing_is_evaluated(videos, tmp_path, capsys):
    summary = prepare(str(videos), tmp_path / "data", min_frames=9, validation=0.0)
    assert (summary["accepted"], summary["rejected"]) == (len(list(videos.glob("*.*"))) - 4, 3)  # captions.jsonl
    train(VaeStage(tiny.vae_config(tmp_path / "data", steps=2, eval_every=1)), tmp_path / "run")
    assert capsys.readouterr().err.count("no validation split, so nothing is evaluated") == 1
    assert "eval_loss" not in (tmp_path / "run" / "metrics.jsonl").read_text()
