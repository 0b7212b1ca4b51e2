"""Adversarial fine-tuning of a video U-Net on images and clips, which is its own teacher."""

import dataclasses
import shutil
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import distill
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.distill.config import CollapseConfig, ObjectiveConfig
from mobile_video_jax.models.run import Run
from mobile_video_jax.stages.config import DistillTraining
from mobile_video_jax.stages.distill import DistillStage
from mobile_video_jax.stages.distill_recipes import fine_tuned
from mobile_video_jax.stages.registry import build_stage
from mobile_video_jax.train.config import OptimizerConfig, PlayersOptimizerConfig
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.unet.config import UnetConfig
from tests import tiny
from tests.nets import normal, randomly

SIZES = UnetConfig(widths=(16,), residuals=(1,), blocks=(1,), head_dim=8, time_features=16)
VIDEO = SIZES.over_time("conv1d" for _ in SIZES.places)
OPTIMIZER = PlayersOptimizerConfig(
    **dataclasses.asdict(tiny.OPTIMIZER), opponent=OptimizerConfig(learning_rate=1e-3, schedule="constant")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def data(folder) -> Path:
    return tiny.latents(folder / "latents", clips=("1x32x32", tiny.CLIP))


@pytest.fixture(scope="module")
def model(folder, data) -> Path:
    """A finished run of the video U-Net, with random weights."""
    return tiny.dit_run(folder / "unet", tiny.dit_config(data, model=VIDEO))


@pytest.fixture(scope="module")
def config(data, model) -> DistillTraining:
    shared = {"model": VIDEO, "init_from": str(model), "steps": 4, "eval_every": 2, "checkpoint_every": 2}
    plain = vars(tiny.dit_config(data, **shared, batch_size=4)) | {"stage": "distill", "optimizer": OPTIMIZER}
    cheap = ObjectiveConfig(own_states=0.0, r1=0.0)
    return fine_tuned(DistillTraining(**plain, objective=cheap, watch=CollapseConfig(0.0, 0.0, 0.0, 0.0)))


def test_the_run_is_its_own_teacher_where_no_loss_asks_for_answers(config, model):
    built = DistillStage.build(config).config
    assert built.teacher == str(model) and built.model == built.teacher_model == VIDEO
    asking = dataclasses.replace(config, objective=dataclasses.replace(config.objective, kd=1.0))
    with pytest.raises(UserError, match="learnt from no other run: name one to learn from with --config.teacher"):
        DistillStage.build(asking)
    with pytest.raises(UserError, match="a U-Net of 1 places on its way down has no place 2: use taps from 1 to 1"):
        DistillStage.build(dataclasses.replace(config, taps=(2,)))


def test_the_adversarial_loss_reaches_the_generator_through_the_backbone_which_stays(config):
    """Of clips that padding leaves one frame the discriminator's layers over time have no gradient."""
    game = dataclasses.replace(config.objective, flow=0.0)
    stage = DistillStage(dataclasses.replace(config, init_from="", data="", teacher_model=VIDEO, objective=game))
    params = randomly(jax.eval_shape(stage.init, jax.random.key(0)), 0.3)
    batch = {"latents": normal(0, 2, 3, 4, 4, 6), "text": normal(1, 2, 12, 384), "text_mask": jnp.ones((2, 12), bool)}
    norm = lambda tree: float(optax.tree.norm(tree))

    @jax.jit
    def gradients(frames: int) -> dict:
        mask = jnp.broadcast_to(jnp.arange(3)[:, None, None] < frames, (2, 3, 4, 4))
        return jax.grad(lambda p: stage.loss(p, batch | {"latent_mask": mask}, jax.random.key(0))[0])(params)

    for frames in (1, 3):
        grads = gradients(frames)
        assert norm(grads["teacher"]) == 0 < min(norm(grads["generator"]), norm(grads["discriminator"]))
        assert (norm(grads["discriminator"]["tap_0"]["temporal_0"]) > 0) == (frames > 1)


@pytest.mark.slow
def test_it_is_trained_on_images_and_clips_goes_on_exactly_and_is_sampled_in_four_steps(config, model, tmp_path):
    train(DistillStage.build(config), tmp_path / "run")
    lines = read_metrics(tmp_path / "run")
    assert {"flow", "adversarial", "real_accuracy", "eval_motion"} <= lines[-1].keys() and "kd" not in lines[-1]
    run = Run.open(tmp_path / "run")
    sampling = run.denoiser.sampling
    assert (sampling.steps, sampling.guidance) == (4, 1.0) and run.denoiser.config.model == VIDEO
    before, after = (each.params(run.denoiser.parameter_shapes) for each in (Run.open(model), run))
    moved = [np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)]
    assert np.mean(moved) > 0.9
    again = shutil.copytree(tmp_path / "run", tmp_path / "again")
    shutil.rmtree(again / "checkpoints" / "4")
    train(DistillStage.build(config), again)
    same = lambda line: {k: v for k, v in line.items() if "second" not in k and "tflops" not in k}
    assert [same(line) for line in read_metrics(again)] == [same(line) for line in lines]


@pytest.mark.parametrize("variant", ["unet_video", pytest.param("snapgenv", marks=pytest.mark.slow)])
def test_variants_are_games_of_shapes_alone(variant):
    stage = build_stage(distill.get_config(variant).to_dict())
    params = jax.eval_shape(stage.init, jax.random.key(0))
    loss, metrics = jax.eval_shape(stage.loss, nn.unbox(params), stage.abstract_batch(), jax.random.key(0))
    assert loss.shape == () and {"flow", "adversarial"} <= metrics.keys() and "kd" not in metrics
    assert stage.config.image_share == 0.5 and not stage.config.temporal_only
