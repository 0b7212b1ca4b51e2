"""The latent reward as a stage, its labels, and fine-tuning by it."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json
from mobile_video_jax.dit.config import LoraConfig
from mobile_video_jax.latents.store import records
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.rewards.config import TuningConfig
from mobile_video_jax.rewards.labels import Labels, write_labels
from mobile_video_jax.stages.config import RewardTraining, RewardTuning
from mobile_video_jax.stages.reward import AUC, RewardStage
from mobile_video_jax.stages.reward_tuning import RewardTuningStage
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from tests import tiny

MODEL = dataclasses.replace(tiny.DIT, width=32, depth=1, heads=2, head_dim=16, ffn=32)
SHORT = {"optimizer": tiny.OPTIMIZER, "eval_batches": 2, "log_every": 1, "batch_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def data(folder) -> Path:
    """Clips whose mean follows the caption; those of positive mean are right."""
    data = tiny.latents(folder / "latents", validation=16)
    rows = [row for split in ("train", "validation") for row in records(data, split)]
    write_labels(data / "labels.jsonl", {row["id"]: float(row["latents"].mean() > 0) for row in rows})
    return data


@pytest.fixture(scope="module")
def base(folder, data) -> Path:
    return tiny.dit_run(folder / "dit", tiny.dit_config(data, model=MODEL))


@pytest.fixture(scope="module")
def reward(folder, data, base) -> Path:
    config = RewardTraining(
        init_from=str(base), data=str(data), steps=40, eval_every=40, mismatched=0.0, reward_blocks=1, **SHORT
    )
    train(RewardStage.build(config), folder / "reward")
    return folder / "reward"


@pytest.fixture(scope="module")
def tuning(data, base, reward) -> RewardTuning:
    settings = TuningConfig(run=str(reward), steps=4, guidance=1.0, weight=1.0)
    shared = {"steps": 2, "eval_every": 2, "checkpoint_every": 2, "text_tokens": 12}
    return RewardTuning(init_from=str(base), data=str(data), reward=settings, **shared, **SHORT)


def test_a_reward_is_right_at_little_noise_and_less_so_at_much(reward):
    auc = read_json(reward / AUC)
    assert auc["0.1"] >= 0.9 and auc["0.1"] >= auc["0.9"]
    assert "accuracy" in read_metrics(reward)[-1]


def test_a_reward_is_no_transformer_and_starts_from_one(reward, data):
    with pytest.raises(UserError, match="stage 'reward', which holds no transformer"):
        _ = Run.open(reward).denoiser
    stage = RewardStage(RewardTraining(data=str(data)))
    with pytest.raises(UserError, match=r"name its run with --config\.init_from"):
        stage.train_batches(make_mesh(stage.config.mesh))


def test_labels_of_other_clips_and_damaged_ones_are_refused_in_a_line(data, base, tmp_path):
    path = tmp_path / "labels.jsonl"
    write_labels(path, {"someone-elses": 1.0})
    config = RewardTraining(init_from=str(base), data=str(data), labels=str(path), steps=1, reward_blocks=1, **SHORT)
    with pytest.raises(UserError, match="has no label of the clip train-.*made for other clips"):
        train(RewardStage.build(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for line in ('{"id": "a"}', '{"id": "a", "label": 2}', "nonsense"):
        path.write_text(json.dumps({"id": "b", "label": 0}) + "\n" + line + "\n")
        with pytest.raises(UserError, match=r"labels.jsonl:2: "):
            Labels.read(path)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 2])
def test_tuning_moves_the_generator_alone_and_leaves_a_run_that_samples(tuning, base, rank, tmp_path):
    stage = RewardTuningStage.build(dataclasses.replace(tuning, lora=LoraConfig(rank=rank)))
    train(stage, tmp_path / "tuned")
    lines = read_metrics(tmp_path / "tuned")
    assert "reward" not in lines[0] and 0 < lines[1]["reward"] < 1 and "eval_reward" in lines[1]
    run = Run.open(tmp_path / "tuned")
    mesh = make_mesh(stage.config.mesh)
    before, after = Run.open(base).sharded_params(mesh), run.sharded_params(mesh)
    same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), before, after)
    assert not all(jax.tree.leaves(same))


def test_a_hinge_of_nothing_more_to_ask_has_no_gradient_and_the_reward_has_none_at_all(tuning):
    stage = RewardTuningStage.build(dataclasses.replace(tuning, reward=dataclasses.replace(tuning.reward, enough=1e-6)))
    mesh_batch = {
        name: jnp.asarray(np.ones(shape.shape, shape.dtype)) for name, shape in stage.abstract_batch().items()
    }
    params = jax.tree.map(lambda x: jnp.full(x.shape, 0.01, x.dtype), stage.shapes)
    gradient = jax.jit(jax.grad(lambda p: stage.reward_loss(p, mesh_batch, jax.random.key(0))[0]))(params)
    assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(gradient))


def test_rollouts_that_cannot_be_are_refused(tuning):
    for changes, message in (
        ({"grad_steps": 5}, "a rollout has 4 steps"),
        ({"low": 0.6, "high": 0.7}, "no step of 4 ends from"),
    ):
        reward = dataclasses.replace(tuning.reward, **changes)
        with pytest.raises(UserError, match=message):
            RewardTuningStage.build(dataclasses.replace(tuning, reward=reward))
