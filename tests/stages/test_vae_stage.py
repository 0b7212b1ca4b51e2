"""VAE runs: phases that start from one another, frozen parts, and decoders for an encoder that stays."""

import dataclasses
import json
import shutil
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.evaluate.vae import VaeTask, evaluate_vae
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.models.run import Run
from mobile_video_jax.stages.config import VaeTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.train.checkpoint import save_model
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.train.run import write_run
from mobile_video_jax.train.sessions import read_sessions
from mobile_video_jax.vae.config import VaeConfig, VaeLossConfig
from mobile_video_jax.vae.latent_stats import LatentStats
from mobile_video_jax.vae.ltx.config import LtxVaeConfig
from mobile_video_jax.vae.ltx.model import LtxVae
from tests import tiny
from tests.nets import normal, params_like

PUBLISHED = LtxVaeConfig(
    channels=4,
    encoder_widths=(8, 8, 8, 8),
    encoder_depths=(0, 0, 1, 0),
    encoder_steps=("spatial", "temporal", "conv"),
    decoder_widths=(8, 8),
    decoder_depths=(1, 1, 1),
    up=(True, True),
    up_factor=(1, 1),
    up_residual=(False, False),
    noise=(False, False, False),
)


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


def test_a_second_phase_without_a_first_is_refused_before_a_run_is_made(videos, tmp_path):
    loss = VaeLossConfig(kl=0.0, scale_equivariance=0.1)
    with pytest.raises(UserError, match="a second phase, the first one's run: --config.init_from=RUN"):
        train(VaeStage(config(videos, loss=loss)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


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
    optimizer = dataclasses.replace(config(videos).optimizer, generator_alone=1)
    changes = {"loss": loss, "optimizer": optimizer, "discriminator_lead": 1, "adaptive_adversarial": True}
    stage = VaeStage(config(videos, **changes, steps=4, eval_every=4, checkpoint_every=2, batch_size=2))
    run = tmp_path / "run"
    train(stage, run)
    whole = read_metrics(run)
    # The VAE alone, then a discriminator that learns, then one that the VAE learns from.
    assert ["discriminator" in line for line in whole] == [False, True, True, True]
    assert ["adversarial_weight" in line for line in whole] == [False, False, True, True]
    shutil.rmtree(run / "checkpoints" / "4")  # as if it had not come to the last save
    train(stage, run)
    for name in ("loss", "discriminator", "adversarial", "perceptual", "latent_consistency"):
        assert [line.get(name) for line in whole] == [line.get(name) for line in read_metrics(run)]
    assert [session["steps"] for session in read_sessions(run)] == [[0, 4], [2, 4]]
    # What a run leaves for use is the VAE alone.
    assert set(Run.open(run).vae().params) == {"encoder", "decoder"}


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """The run that an import of LTX-Video's VAE leaves, with random weights."""
    run = tmp_path_factory.mktemp("import") / "vae"
    LatentStats((0.1,) * 4, (0.5,) * 4).save(run)
    save_model(run, 0, params_like(LtxVae(PUBLISHED), jax.numpy.zeros((1, 1, 16, 16, 3))))
    described = {"clip": tiny.CLIP, "compression": "t4_s16_c4"}
    write_run(run, "vae", {"stage": "vae", "clip": tiny.CLIP, "model": plain(PUBLISHED)}, described)
    return run


def student(videos: Path, published: Path, **changes) -> VaeTraining:
    model = VaeConfig("t4_s16_c4", (6, 6, 6), (1, 1, 1), (6, 6, 6), (1, 1, 1), attention_blocks=0)
    loss = VaeLossConfig(l1=1.0, l2=0.0, kl=0.0, teacher=1.0, features=0.1)
    return config(
        videos, **{"model": model, "freeze_encoder": True, "init_from": str(published), "loss": loss, **changes}
    )


def test_a_decoder_for_an_imported_vae_has_its_encoder_and_learns_from_its_decoder(videos, published):
    stage = VaeStage.build(student(videos, published))
    assert stage.config.model.encoder == PUBLISHED and stage.frozen == {"vgg", "teacher", "encoder"}
    shapes = nn.unbox(jax.eval_shape(stage.init, jax.random.key(0)))
    # Features of the resolutions that both decoders have, from latents to patches of 4x4 pixels.
    assert {name: x["kernel"].shape for name, x in shapes["projectors"].items()} == {
        f"level_{i}": (6, 8) for i in range(3)
    }
    loaded = stage.pretrained(shapes)
    theirs = Run.open(published).vae().params
    jax.tree.map(np.testing.assert_array_equal, loaded["encoder"], theirs["encoder"])
    jax.tree.map(np.testing.assert_array_equal, loaded["teacher"], theirs["decoder"])
    assert "decoder" not in loaded
    with pytest.raises(UserError, match="has latents of t4_s16_c4, this decoder reads t4_s8_c6: use configs"):
        VaeStage.build(student(videos, published, model=tiny.VAE))
    with pytest.raises(UserError, match="a decoder is taught on latents that stay"):
        VaeStage(student(videos, published, freeze_encoder=False))


@pytest.mark.slow
def test_a_decoder_for_an_imported_vae_trains_and_serves_in_its_place(videos, published, tmp_path):
    train(VaeStage.build(student(videos, published)), tmp_path / "run")
    lines = read_metrics(tmp_path / "run")
    assert {"teacher", "features"} <= set(lines[-1]) and len({line["teacher"] for line in lines}) == 3
    old, new = Run.open(published).vae(), Run.open(tmp_path / "run").vae()
    assert set(new.params) == {"encoder", "decoder"} and new.stats == old.stats
    video = normal(0, 1, 9, 32, 32, 3)
    latents = new.encode(new.params, video)
    np.testing.assert_allclose(latents, old.encode(old.params, video), atol=1e-5)
    assert new.decode(new.params, latents).shape == video.shape


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


def test_an_adversarial_term_that_would_never_count_is_refused(videos):
    optimizer = dataclasses.replace(config(videos).optimizer, generator_alone=2)
    changes = {"optimizer": optimizer, "steps": 4, "discriminator_lead": 2}
    assert VaeStage(config(videos, **changes)).losses  # nothing is adversarial
    with pytest.raises(UserError, match="loss.adversarial counts from step 4 of 4: lower"):
        config(videos, loss=VaeLossConfig(adversarial=0.1), **changes)
    with pytest.raises(UserError, match="leave optimizer.generator_every at 1"):
        config(videos, optimizer=dataclasses.replace(optimizer, generator_every=2))


def test_a_step_takes_the_loss_of_what_the_discriminator_does_then(videos):
    optimizer = dataclasses.replace(config(videos).optimizer, generator_alone=2)
    changes = {"optimizer": optimizer, "loss": VaeLossConfig(adversarial=0.1), "steps": 9}
    roles = lambda **more: [
        stage.losses[int(stage.loss_index(step))].keywords["adversary"]
        for stage in [VaeStage(config(videos, **changes, **more))]
        for step in range(5)
    ]
    assert roles(discriminator_lead=2) == ["absent", "absent", "learns", "learns", "counts"]
    assert roles() == ["absent", "absent", "counts", "counts", "counts"]


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
