"""Where metrics and clips of a training go: TensorBoard's event files, and Weights & Biases."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import MetricsLog, read_metrics
from tests import tiny
from tests.events import events, shown
from tests.nets import randomly

FRAMES = np.random.default_rng(0).integers(0, 255, (5, 16, 24, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def latents(tmp_path_factory) -> Path:
    return tiny.latents(tmp_path_factory.mktemp("latents"))


def test_tensorboard_gets_numbers_and_clips_that_move(tmp_path):
    log = MetricsLog(tmp_path, resumed_step=0)
    log.write(3, {"loss": 0.5})
    log.write_clips(3, {"samples/one": FRAMES}, frame_rate=8.0)
    log.close()
    assert [(value.tag, value.simple_value) for value in events(tmp_path) if not value.HasField("image")] == [
        ("loss", 0.5)
    ]
    image = shown(tmp_path)["samples/one"]
    assert (image.format, image.n_frames, image.size) == ("GIF", 5, (24, 16))
    assert read_metrics(tmp_path) == [{"step": 3, "loss": 0.5}]


def test_prompts_of_the_users_own_are_sampled_in_place_of_held_out_captions(latents, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "waves on a beach", "seed": 7}\n{"prompt": "a red square"}\n')
    stage = DitStage(tiny.dit_config(latents, sample_prompts=str(prompts)))
    samples = stage.sample(randomly(stage.shapes, 0.05), 4, tmp_path)
    assert set(samples.clips) == {"samples/00007-waves-on-a-beach", "samples/00001-a-red-square"}
    assert {len(frames) for frames in samples.clips.values()} == {9} and "sample_motion_energy" in samples.metrics
    assert {f"samples/{path.stem}" for path in (tmp_path / "samples" / "4").glob("*.mp4")} == set(samples.clips)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("a.txt", "word " * 30, "fit into 12"),
        ("a.jsonl", '{"prompt": "a", "image": "a.jsonl"}', "leave out the key image"),
        ("a.txt", "", "holds no prompts"),
        ("a.csv", "a", "a .txt or a .jsonl file"),
    ],
)
def test_prompts_that_cannot_be_sampled_are_refused_before_a_run_is_made(name, line, message, latents, tmp_path):
    (tmp_path / name).write_text(line)
    with pytest.raises(UserError, match=message):
        train(DitStage(tiny.dit_config(latents, sample_prompts=str(tmp_path / name), sample_every=1)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class FakeWandb:
    """What a run there is told."""

    def __init__(self):
        self.began, self.logged, self.finished = [], [], 0
        self.Settings, self.Video = SimpleNamespace, lambda gif, format: (format, gif.getvalue()[:3])

    def init(self, **settings):
        self.began.append(settings)
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


def test_weights_and_biases_gets_what_tensorboard_gets_in_one_run_after_a_resume(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", fake := FakeWandb())
    (tmp_path / "run.json").write_text("{}")
    for resumed in (0, 3):
        log = MetricsLog(tmp_path, resumed_step=resumed, project="phones", config={"steps": 4})
        log.write(3 + resumed, {"loss": 0.5})
        log.write_clips(3 + resumed, {"samples/one": FRAMES}, frame_rate=8.0)
        log.close()
    assert fake.logged[:2] == [(3, {"loss": 0.5}), (3, {"samples/one": ("gif", b"GIF")})]
    first, second = fake.began
    assert first["project"] == "phones" and first["config"] == {"steps": 4} and first["dir"] == str(tmp_path)
    assert first["id"] == second["id"] and first["resume"] == "allow" and fake.finished == 2


def test_a_project_without_its_package_is_refused_before_a_run_is_made(latents, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--config\.wandb=phones needs a package: pip install -e '\.\[wandb\]'"):
        train(DitStage(tiny.dit_config(latents, wandb="phones")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
