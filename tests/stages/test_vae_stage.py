"""VAE runs: phases that start from one another, frozen parts, and decoders for an encoder that stays."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.evaluate.vae import VaeTask, evaluate_vae
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.models.run import Run
from mobile_video_jax.stages.config import VaeTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.train.sessions import read_sessions
from mobile_video_jax.vae.config import VaeLossConfig
from tests import tiny


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "videos"
    sizes = {"train": 24, "validation": 8, "test": 6}
    prepare("moving_shapes", out, world=World(counts=(1,)), clip=ClipShape.parse(tiny.CLIP), sizes=sizes)
    return out


def config(videos: Path, **changes) -> VaeTraining:
    short = {"steps": 3, "eval_every": 3, "eval_batches": 1, "checkpoint_every": 3, "stats_batches": 4}
    small = {"vgg_stages": 1, "discriminator_widths": (4, 8)}
    return tiny.vae_config(videos, **{**short, **small, **changes})


@pytest.fixture(scope="module")
def base(videos, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "base"
    train(VaeStage(config(videos)), run)
    return run


@pytest.fixture(scope="module")
def decoder(videos, base, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "decoder"
    model = dataclasses.replace(tiny.VAE, decoder_widths=(6, 6, 6))
    train(VaeStage(config(videos, model=model, freeze_encoder=True, init_from=str(base))), run)
    return run


@pytest.mark.slow
def test_a_smaller_decoder_keeps_the_encoder_and_the_statistics(base, decoder):
    old, new = Run.open(base).vae(), Run.open(decoder).vae()
    jax.tree.map(np.testing.assert_array_equal, new.params["encoder"], old.params["encoder"])
    assert new.stats == old.stats
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(vae.params["decoder"])) for vae in (old, new)]
    assert sizes[1] < sizes[0]
    losses = [line["loss"] for line in read_metrics(decoder)]
    assert len(set(losses)) == 3
    assert Run.open(decoder).record["description"]["frame_rate"] == 8.0


@pytest.mark.slow
def test_a_smaller_decoder_serves_a_transformer_of_its_latents_and_no_other(base, decoder, tmp_path):
    latents = tiny.latents(tmp_path / "latents")
    shutil.rmtree(latents / "vae")
    Run.open(base).copy(latents / "vae")
    train(DitStage(tiny.dit_config(latents, steps=1, eval_every=1, checkpoint_every=1)), tmp_path / "dit")
    assert Generator.load(tmp_path / "dit", decoder).vae.vae.config.decoder_widths == (6, 6, 6)
    other = tiny.vae_run(tmp_path / "other")
    with pytest.raises(UserError, match="has other latents than"):
        Generator.load(tmp_path / "dit", other)


@pytest.mark.slow
def test_a_second_phase_starts_from_the_first_ones_weights(videos, base, tmp_path):
    loss = VaeLossConfig(kl=0.0, scale_equivariance=0.1)
    tuned = config(videos, init_from=str(base), loss=loss, steps=1, eval_every=1, checkpoint_every=1)
    train(VaeStage(tuned), tmp_path / "tuned")
    before, after = (Run.open(run).vae().params for run in (base, tmp_path / "tuned"))
    moved = [float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)]
    # The averaged weights of one step at the warm-up's rate of 0 are the first phase's.
    assert max(moved) < 1e-6
    assert "scale_equivariance" in read_metrics(tmp_path / "tuned")[-1]


@pytest.mark.slow
def test_a_run_with_a_discriminator_and_vgg_resumes_exactly(videos, tmp_path):
    loss = VaeLossConfig(perceptual=0.1, adversarial=0.05, latent_consistency=1e-4)
    stage, run = VaeStage(config(videos, loss=loss, steps=4, eval_every=4, checkpoint_every=2)), tmp_path / "run"
    train(stage, run)
    whole = read_metrics(run)
    shutil.rmtree(run / "checkpoints" / "4")  # as if it had not come to the last save
    train(stage, run)
    for name in ("loss", "discriminator", "adversarial", "perceptual", "latent_consistency"):
        assert [line[name] for line in whole] == [line[name] for line in read_metrics(run)]
    assert [session["steps"] for session in read_sessions(run)] == [[0, 4], [2, 4]]
    # What a run leaves for use is the VAE alone.
    assert set(Run.open(run).vae().params) == {"encoder", "decoder"}


def test_a_decoder_without_its_encoders_run_is_refused(videos, base, tmp_path):
    with pytest.raises(UserError, match="name its run with --config.init_from"):
        train(VaeStage(config(videos, freeze_encoder=True)), tmp_path / "run")
    model = dataclasses.replace(tiny.VAE, encoder_widths=(8, 8, 18))
    with pytest.raises(UserError, match="has encoder_widths="):
        train(VaeStage(config(videos, model=model, freeze_encoder=True, init_from=str(base))), tmp_path / "run")
    model = dataclasses.replace(tiny.VAE, rope_theta=50.0)
    with pytest.raises(UserError, match="has rope_theta="):
        train(VaeStage(config(videos, model=model, freeze_encoder=True, init_from=str(base))), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_scales_that_leave_no_latent_place_are_refused(videos):
    with pytest.raises(UserError, match="scale equivariance at 1/8 needs latents that divide by it"):
        VaeStage(config(videos, loss=VaeLossConfig(scale_equivariance=0.1), scales=(8,)))


def test_evaluation_writes_scores_with_their_protocol_and_the_seam_of_tiles(base, videos, tmp_path):
    def evaluated(name, **changes):
        return evaluate_vae(VaeTask(Run.open(base), videos, tmp_path / name, count=3, **changes))

    whole = evaluated("whole")
    assert set(whole["metrics"]) == {"psnr", "ssim", "flicker"} and whole["protocol"]["clips"] == 3
    score = whole["metrics"]["psnr"]
    assert score["low"] <= score["value"] <= score["high"] and score["n"] == 3
    assert whole == json.loads((tmp_path / "whole" / "report.json").read_text())
    assert "<video" in (tmp_path / "whole" / "report.html").read_text()
    streamed = evaluated("streamed", chunk=1)
    assert streamed["metrics"]["psnr"]["value"] == pytest.approx(score["value"], abs=1e-3)
    tiled = evaluated("tiled", tile=16, overlap=8)
    assert 0 < tiled["seam"]["mean"] <= tiled["seam"]["max"] <= 255
    with pytest.raises(UserError, match="clips it was not trained on"):
        evaluated("train", split="train")
