"""The demo, end to end, with a few steps of each stage (two minutes) and as it is shipped."""

import json
import re
from pathlib import Path

import pytest

from tests.commands import run

SHORT = {
    **{"vae.steps": 6, "vae.eval_batches": 2, "vae.stats_batches": 2, "dit.steps": 4, "dit.eval_batches": 1},
    **{"dit.model.depth": 1, "vae.optimizer.name": "adamw", "dit.optimizer.name": "adamw"},  # compile sooner
    **{"vae.model.encoder_widths": (8, 16, 32), "vae.model.decoder_widths": (8, 16, 32)},
    **{f"{stage}.batch_size": 8 for stage in ("dit", "recover", "distill")},
    **{"prune.clips": 4, "prune.times": 1, "prune.batch_clips": 4, "prune.levels": ("head", "channel")},
    **{"recover.steps": 2, "recover.eval_batches": 1, "recover.optimizer.name": "adamw"},
    **{"distill.steps": 2, "distill.eval_batches": 1, "distill.optimizer.name": "adamw", "distill.eval_every": 2},
    **{"distill.watch.motion": 0.0, "distill.watch.spread": 0.0, "distill.watch.colour": 0.0, "few.steps": 2},
    **{"train_clips": 64, "validation_clips": 32, "test_clips": 8, "samples": 3, "sampling.steps": 2},
}


def run_demo(out: Path, overrides: dict[str, int]) -> dict:
    config = [f"--config.{key}={value}" for key, value in overrides.items()]
    done = run("launch.demo", f"--out={out}", *config, timeout=1800)
    assert done.status == 0, done.err
    assert done.out.splitlines()[0] == str(out / "report.html")
    assert set(json.loads(done.out.splitlines()[-1])) == {"out", "accuracy", "psnr"}
    return json.loads((out / "report.json").read_text())


@pytest.mark.slow
def test_a_short_demo_leaves_a_whole_report(tmp_path):
    report = run_demo(tmp_path / "demo", SHORT)
    assert set(report["stages"]) == {
        "prepare",
        "vae",
        "encode",
        "dit",
        "prune",
        "recover",
        "distill",
        "alone",
        "sample",
        "export",
    }
    assert all(set(stage) == {"seconds", "loss", "metrics"} for stage in report["stages"].values())
    for name in ("colour", "shape", "motion"):
        row = report["samples"]["accuracy"][name]
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1 and row["real"] == 1.0 and row["n"] == 3
    assert report["vae"]["psnr"] > 3 and -1 <= report["vae"]["ssim"] <= 1 and report["vae"]["real"]["clips"] > 0
    assert {row["name"] for row in report["export"]["packages"]} == {"text", "dit", "vae_first", "vae_next"}
    assert all(row["psnr"] >= 35 and row["relative_error"] <= 2e-3 for row in report["export"]["packages"])
    assert {row["name"] for row in report["export"]["assets"]} == {"text", "dit", "vae"}
    assert all(row["psnr"] >= 35 and row["relative_error"] <= 2e-3 for row in report["export"]["assets"])
    assert report["export"]["clips"][0]["psnr"] >= 35 and report["export"]["clips"][0]["assets_psnr"] >= 35
    assert (tmp_path / "demo" / "export" / "dit.mlpackage").is_dir()
    html = (tmp_path / "demo" / "report.html").read_text()
    assert html.count("<video") >= 5 * 3 + 2 * 4 + 2 and not re.search("https?://", html)
    assert len(list((tmp_path / "demo" / "videos").glob("*.mp4"))) == 5 * 3


@pytest.mark.slow
def test_a_demo_that_moved_resumes_with_what_it_has(tmp_path):
    """Two minutes: nothing is trained again, and the report says the same of every model."""
    before = run_demo(tmp_path / "demo", SHORT)
    (tmp_path / "demo").rename(tmp_path / "moved")
    after = run_demo(tmp_path / "moved", SHORT)
    assert (
        after["samples"]["accuracy"] == before["samples"]["accuracy"] and after["vae"]["psnr"] == before["vae"]["psnr"]
    )
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_the_whole_demo_is_visibly_right(tmp_path):
    """The bar of the demo: on held-out prompts 95 % colour, 80 % shape and 75 % motion."""
    models = run_demo(tmp_path / "demo", {})["samples"]["models"]
    for accuracy in (models[name]["accuracy"] for name in ("dit", "recovered", "distilled")):
        assert accuracy["colour"]["value"] >= 0.95
        assert accuracy["shape"]["value"] >= 0.80
        assert accuracy["motion"]["value"] >= 0.75
    assert models["distilled"]["evaluations"] * 20 == models["dit"]["evaluations"]
    assert models["recovered"]["parameters"] < 0.6 * models["dit"]["parameters"]
