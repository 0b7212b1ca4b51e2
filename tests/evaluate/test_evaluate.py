"""Evaluating runs: what is measured, what is left behind, and how an evaluation goes on."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.evaluate import vae as evaluate_vae
from mobile_video_jax.evaluate.evaluated_run import read_evaluation
from mobile_video_jax.evaluate.generated_clips import read_frames
from mobile_video_jax.evaluate.generation import GenerationTask, evaluate_generation
from mobile_video_jax.evaluate.vae import VaeTask
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.metrics import video_distance
from mobile_video_jax.metrics.diversity import pixel_diversity
from mobile_video_jax.metrics.i3d import Activations
from mobile_video_jax.metrics.lpips import LPIPS
from mobile_video_jax.metrics.motion import motion_energy
from mobile_video_jax.metrics.reconstruction import PSNR, psnr
from mobile_video_jax.models.run import Run
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.checkpoint import save_model
from mobile_video_jax.train.run import write_run
from tests import tiny

SAMPLING = {"steps": 1, "guidance": 2.0}
COUNT, MORE = 4, 3  # clips with a caption of their own, and further ones of the first caption


@pytest.fixture(scope="module")
def i3d():
    """The clips that a random projection in I3D's place has seen."""
    batches: list[np.ndarray] = []
    weights = np.random.default_rng(0).normal(size=(9 * 32 * 32 * 3, 1424)).astype(np.float32) / 1e4

    def activations(params, clips):
        batches.append(clips)
        outputs = clips.reshape(len(clips), -1).astype(np.float32) @ weights
        return Activations(outputs[:, :1024], outputs[:, 1024:])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video_distance, "FRAMES", 9)
        patch.setattr(video_distance, "load_i3d", dict)
        patch.setattr(video_distance, "activations", activations)
        yield batches


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "videos"
    sizes = {"train": 1, "validation": 1, "test": COUNT}
    prepare("moving_shapes", out, world=World(counts=(1,)), clip=ClipShape.parse(tiny.CLIP), sizes=sizes)
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A finished transformer run with random weights, which is read once."""
    run = tmp_path_factory.mktemp("model") / "dit"
    config = tiny.dit_config(Path("nowhere"), text_tokens=16, image_probability=0.3)
    shapes, rng = nn.unbox(jax.eval_shape(DitStage(config).init, jax.random.key(0))), np.random.default_rng(0)
    save_model(run, 1, jax.tree.map(lambda x: rng.normal(0, 0.05, x.shape).astype(np.float32), shapes))
    write_run(run, "dit", json.loads(json.dumps(dataclasses.asdict(config))), {})
    tiny.vae_run(run / "vae")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Generator, "load", functools.cache(Generator.load))
        yield run


@functools.cache
def opened(model: Path) -> Run:
    return Run.open(model)


def task(model: Path, videos: Path, out: Path, **changes) -> GenerationTask:
    short = GenerationTask(
        opened(model), videos, out, SAMPLING, image=True, diversity_prompts=1, batch_size=COUNT, seed=5
    )
    return dataclasses.replace(short, batch_size=COUNT, **changes)


@pytest.fixture(scope="module")
def evaluated(model, videos, i3d, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "out"
    evaluate_generation(task(model, videos, out))
    return out


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def generated_clips(out: Path) -> list[np.ndarray]:
    names = [clip["file"] for clip in json.loads((out / "clips" / "samples.json").read_text())["clips"]]
    return [read_frames((out / "clips" / name).with_suffix(".npz")) for name in names]


def real(videos: Path) -> list[np.ndarray]:
    return [item["video"] for item in captioned_clips(ClipSource.open(videos), "test", ClipShape.parse(tiny.CLIP))]


def test_scores_are_those_of_the_drawn_and_the_real_clips(evaluated, videos):
    report, generated, true = report_of(evaluated), generated_clips(evaluated), real(videos)
    assert len(generated) == COUNT + MORE
    expected = {
        "motion_energy": np.mean([motion_energy(clip) for clip in generated[:COUNT]]),
        "psnr": np.mean([psnr(x, y) for x, y in zip(true, generated, strict=False)]),
        "first_frame_psnr": np.mean([psnr(x[:1], y[:1]) for x, y in zip(true, generated, strict=False)]),
        "diversity": pixel_diversity(np.stack([generated[0], *generated[COUNT:]])),
    }
    for name, value in expected.items():
        assert report["metrics"][name]["value"] == pytest.approx(value)
        low, high = (report["metrics"][name][end] for end in ("low", "high"))
        assert (low, high) == (None, None) if report["metrics"][name]["n"] == 1 else low <= value <= high
    assert report["metrics"]["accuracy_all"]["chance"] == pytest.approx(1 / (6 * 4 * 6))
    assert report["metrics"]["fvd"]["n"] == COUNT
    beside = report["beside"]
    assert beside["real_clips"]["accuracy_all"]["value"] == 1 and beside["real_clips"]["kvd"]["n"] == COUNT // 2
    # A clip's first frame is what the VAE makes of the image.
    ceiling = beside["reconstructed_clips"]["first_frame_psnr"]["value"]
    assert ceiling == pytest.approx(report["metrics"]["first_frame_psnr"]["value"], abs=0.2)


def test_the_report_tells_how_to_repeat_it_and_shows_failures(evaluated, model):
    report, page = report_of(evaluated), (evaluated / "report.html").read_text()
    protocol = report["protocol"]
    assert report["stage"] == "dit" and protocol["run"] == str(model) and protocol["step"] == 1
    assert protocol["sampling"]["guidance"] == 2.0 and protocol["seed"] == 5 and protocol["clips"] == COUNT
    assert "wrong" in page and "real clips" in page and "Lowest PSNR" in page


def test_a_comparison_reads_the_evaluation(evaluated):
    run = read_evaluation(evaluated, "a")
    assert len(run.clips) == len(run.prompts) == COUNT and len(run.samples) == COUNT + MORE
    sample = (run.prompts[1], 6)
    assert run.samples[sample].is_file()
    assert run.score(PSNR, sample) == run.scores[PSNR][1]
    assert np.mean(run.scores[PSNR]) == pytest.approx(run.metrics[PSNR].value)


def test_an_interrupted_evaluation_goes_on_and_ends_the_same(evaluated, model, videos, i3d, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(evaluated, out)
    for clip in sorted((out / "clips").glob("*.mp4"))[:COUNT]:
        clip.unlink()
        clip.with_suffix(".npz").unlink()
    write_times = {path: path.stat().st_mtime_ns for path in (out / "clips").glob("*.npz")}
    for name in ("report.json", "scores.json", "clips/samples.json"):
        (out / name).unlink()
    i3d.clear()
    evaluate_generation(task(model, videos, out))
    for name in ("report.json", "scores.json"):
        assert (out / name).read_bytes() == (evaluated / name).read_bytes()
    assert all(path.stat().st_mtime_ns == time for path, time in write_times.items()) and not i3d


@pytest.mark.parametrize("suffix", [".npz", ".mp4"])
def test_a_broken_clip_is_named(evaluated, model, videos, tmp_path, suffix):
    shutil.copytree(evaluated, tmp_path / "out")
    clip = min((tmp_path / "out" / "clips").glob(f"*{suffix}"))
    clip.write_bytes(clip.read_bytes()[:200])
    with pytest.raises(UserError, match=f"{clip.stem}.npz is missing or damaged .* and start again"):
        evaluate_generation(task(model, videos, tmp_path / "out"))


def test_what_cannot_be_measured_is_refused(evaluated, model, videos, i3d, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="use the split test or validation"):
        evaluate_generation(task(model, videos, tmp_path / "out", split="train"))
    with pytest.raises(UserError, match="made with another seed: name another --out"):
        evaluate_generation(task(model, videos, evaluated, seed=6))
    with pytest.raises(UserError, match="video distances need at least 4 clips; there are 3"):
        evaluate_generation(task(model, videos, tmp_path / "out", count=3, fvd=True))
    record = json.loads((model / "run.json").read_text())
    record["config"]["image_probability"] = 0.0
    shutil.copytree(model, tmp_path / "blind")
    (tmp_path / "blind" / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="cannot start from an image"):
        evaluate_generation(task(tmp_path / "blind", videos, tmp_path / "out"))
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no evaluation"):
        evaluate_generation(task(model, videos, tmp_path))
    assert not (tmp_path / "out").exists()


def test_why_there_is_no_video_distance(monkeypatch):
    monkeypatch.setattr(video_distance, "FRAMES", 16)
    assert "at least 16 frames; these have 9" in video_distance.obstacle(ClipShape(9, 32, 32), 64)
    assert "need at least 4 clips; there are 3" in video_distance.obstacle(ClipShape(17, 32, 32), 3)
    assert video_distance.obstacle(ClipShape(17, 32, 32), 4) == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "weights are missing: run make setup" in video_distance.obstacle(ClipShape(17, 32, 32), 4)


def test_a_vae_has_the_distances_asked_for(model, videos, i3d, tmp_path, monkeypatch):
    (tmp_path / "vgg.pth").write_bytes(b"weights")
    monkeypatch.setattr(evaluate_vae, "load_lpips", lambda net, file: net)
    monkeypatch.setattr(evaluate_vae, "lpips", lambda net, params, x, y: np.abs(x[:, 0, 0, 0, 0] - 128.0))
    vae_task = VaeTask(Run.open(model / "vae"), videos, tmp_path / "out", fvd=True, lpips=f"vgg:{tmp_path}/vgg.pth")
    report = evaluate_vae.evaluate_vae(vae_task)
    assert {"psnr", "ssim", "flicker", "lpips", "kvd", "fvd", "fvd_features"} == report["metrics"].keys()
    assert report["metrics"]["lpips"]["n"] == COUNT and "vgg, sha256" in report["protocol"]["metrics"]["lpips"]
    assert read_evaluation(tmp_path / "out", "vae").scores[LPIPS].shape == (COUNT,)
    with pytest.raises(UserError, match="is not of the form vgg:FILE or alex:FILE"):
        evaluate_vae.evaluate_vae(dataclasses.replace(vae_task, out=tmp_path / "new", lpips="vgg"))
