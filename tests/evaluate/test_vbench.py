"""Clips lie where VBench looks for them, and its results become a report like our own."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.video.probe import probe
from mobile_video_jax.evaluate.vbench import generate_videos, vbench_requests, write_results
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.folder import GenerationJob
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.metrics.vbench import DIMENSIONS, prompt_of
from mobile_video_jax.models.run import Run
from mobile_video_jax.train.run import write_run
from tests import tiny

PROMPTS = ["a red circle, oil painting", "A red circle moving left.", "a red circle, oil painting"]


class Noise(Generator):
    """Draws noise by seed in no time: what is drawn is not looked at here."""

    times: ClassVar = {"shift": 1.0, "terminal": 0.0, "schedule": "uniform"}

    def __init__(self, folder: Path):
        object.__setattr__(self, "run", Run.open(folder))
        object.__setattr__(self, "vae_run", self.run.vae_run())
        object.__setattr__(self, "clip", ClipShape.parse(tiny.CLIP))
        object.__setattr__(self, "text_encoder", SimpleNamespace(name="minilm"))

    def check(self, requests, config):
        pass

    def generate_batches(self, requests, config, batch_size=16):
        draw = lambda one: np.random.default_rng(one.seed).integers(0, 256, (9, 32, 32, 3), np.uint8)
        yield np.stack([draw(request) for request in requests])


def run(folder: Path) -> Path:
    """What tells a run's folder from another's."""
    for name, stage in ((folder, "dit"), (folder / "vae", "vae")):
        write_run(name, stage, {}, {})
        (name / "checkpoints" / "1").mkdir(parents=True)
    return folder


def listed(folder: Path, texts: list[str] = PROMPTS) -> Path:
    path = folder / "all_dimension.txt"
    path.write_text("".join(text + "\n" for text in texts))
    return path


def test_every_clip_of_every_prompt_has_a_seed_of_its_own(tmp_path):
    requests = vbench_requests(listed(tmp_path), 3, seed=10)
    assert [request.seed for request in requests] == list(range(10, 16))
    assert [request.prompt for request in requests] == [PROMPTS[0]] * 3 + [PROMPTS[1]] * 3


def test_the_suite_with_its_dimensions_gives_the_same_clips(tmp_path):
    info = tmp_path / "VBench_full_info.json"
    info.write_text(json.dumps([{"prompt_en": text, "dimension": ["scene"]} for text in PROMPTS]))
    assert vbench_requests(info, 3, 10) == vbench_requests(listed(tmp_path), 3, 10)


@pytest.mark.parametrize("text", ["half/half", "long " * 60, "null \0"])
def test_prompts_that_cannot_name_a_file_are_refused(tmp_path, text):
    with pytest.raises(UserError, match="cannot name a file"):
        vbench_requests(listed(tmp_path, ["a ring", text]), 5, 0)


@pytest.mark.parametrize("text", ["[3]", '{"a": 1}', '[{"prompt": "a ring"}]', "[{"])
def test_damaged_suites_are_refused(tmp_path, text):
    (tmp_path / "info.json").write_text(text)
    with pytest.raises(UserError, match="is no VBench_full_info.json"):
        vbench_requests(tmp_path / "info.json", 5, 0)
    with pytest.raises(UserError, match="does not open"):
        vbench_requests(tmp_path / "none.json", 5, 0)


def test_vbench_finds_each_clip_and_nothing_else(tmp_path):
    run(tmp_path / "dit")
    requests = vbench_requests(listed(tmp_path), 2, 0)
    config = SampleConfig(steps=1, guidance=1.0)
    job = GenerationJob(requests, config, tmp_path / "out" / "drawn")
    videos = generate_videos(Noise(tmp_path / "dit"), job, 2, 16)
    expected = [f"{prompt}-{i}.mp4" for prompt in PROMPTS[:2] for i in (0, 1)]
    # As VBench does in build_full_info_json: any file tells the extension, and names are the prompts.
    assert sorted(os.listdir(tmp_path / "out" / "videos")) == sorted(expected) == sorted(path.name for path in videos)
    assert all(prompt_of(path.stem) == request.prompt for path, request in zip(videos, requests, strict=True))
    assert len({path.read_bytes() for path in videos}) == 4
    assert probe(videos[0]).frames == 9
    (tmp_path / "out" / "drawn" / "00001-a-red-circle-oil-painting.mp4").unlink()
    videos[1].unlink()
    before = [path.stat().st_mtime_ns for path in (videos[0], *videos[2:])]
    assert generate_videos(Noise(tmp_path / "dit"), job, 2, 16) == videos
    assert before == [path.stat().st_mtime_ns for path in (videos[0], *videos[2:])] and videos[1].exists()


def results(path: Path, left_out: str = "") -> dict[str, list]:
    """A file as VBench writes it, with five videos of each of four prompts in every dimension."""
    rng = np.random.default_rng(0)
    content = {}
    for name in DIMENSIONS:
        values = rng.uniform(0.5, 0.6, (4, 5))
        unit = 100 if name == "imaging_quality" else 1
        videos = [
            {"video_path": f"v/a clip of {name} {i}-{j}.mp4", "video_results": unit * values[i, j]}
            for i in range(4)
            for j in range(5)
        ]
        content[name] = [values.mean(), videos]
    content.pop(left_out, None)
    path.write_text(json.dumps(content))
    return content


def test_results_become_metrics_scores_and_a_page(tmp_path):
    content = results(tmp_path / "x_eval_results.json")
    numbers = write_results(tmp_path / "x_eval_results.json", tmp_path / "out")
    assert numbers == json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(numbers["metrics"]) == [*DIMENSIONS, "quality", "semantic", "total"]
    for name, (score, videos) in content.items():
        metric = numbers["metrics"][name]
        assert metric["value"] == score and metric["low"] < score < metric["high"] and metric["n"] == len(videos)
    per_video = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert len(per_video["clips"]) == len(per_video["prompts"]) == 16 * 20
    scene = np.array(per_video["scores"]["scene"], float)
    assert np.isfinite(scene).sum() == 20 and np.nanmean(scene) == pytest.approx(content["scene"][0])
    assert per_video["prompts"][0] == "a clip of subject_consistency 0"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "16 of 16" in page and f"{100 * numbers['metrics']['total']['value']:.2f}" in page


def test_a_missing_dimension_is_named_and_leaves_its_totals_out(tmp_path):
    results(tmp_path / "x_eval_results.json", left_out="temporal_style")
    numbers = write_results(tmp_path, tmp_path / "out")
    assert "quality" in numbers["metrics"] and not {"semantic", "total"} & numbers["metrics"].keys()
    assert "belong to: temporal style." in (tmp_path / "out" / "report.html").read_text()
