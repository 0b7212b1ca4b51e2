"""A U-Net learns from a transformer on the same latents."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.distill.config import KdWeights
from mobile_video_jax.stages.config import RecoverTraining
from mobile_video_jax.stages.recover import RecoverStage
from mobile_video_jax.unet.config import UnetConfig
from tests import tiny
from tests.nets import normal, randomly

STUDENT = UnetConfig(widths=(16,), residuals=(1,), blocks=(1,), head_dim=8, time_features=16)
TEACHER = dataclasses.replace(tiny.DIT, width=24, depth=2, heads=2, head_dim=12, ffn=48)
IMAGE = "1x32x32"
BATCH = {"latents": normal(0, 4, 1, 4, 4, 6), "text": normal(1, 4, 12, 384), "text_mask": jnp.ones((4, 12), bool)}


def config(data: Path, **changes) -> RecoverTraining:
    base = tiny.dit_config(data, clip=IMAGE, model=STUDENT)
    shared = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)} | {"stage": "recover"}
    return RecoverTraining(**shared | {"teacher_model": TEACHER} | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.latents(tmp_path_factory.mktemp("data") / "latents", clips=(IMAGE,))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return tiny.dit_run(tmp_path_factory.mktemp("runs") / "dit", tiny.dit_config(Path("x"), clip=IMAGE, model=TEACHER))


@pytest.mark.slow
def test_velocity_and_projected_features_teach_in_balance(data):
    stage = RecoverStage(config(data, balance="timestep"))
    params = randomly(jax.eval_shape(stage.init, jax.random.key(0)))
    assert params["projectors"]["map_0"]["kernel"].shape == (16, 24)
    loss = lambda params: stage.loss(params, BATCH, jax.random.key(0))
    (value, metrics), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    # At every time each of both balances is of the size of the flow-matching loss, within the limits of the ratio.
    assert np.isfinite(value) and 0 < value < 2.5 * metrics["flow_loss"]
    size = lambda tree: sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(tree))
    assert size(gradient["student"]) > 0 < size(gradient["projectors"]) and size(gradient["teacher"]) == 0


def test_without_a_weight_there_are_no_projectors(data):
    stage = RecoverStage(config(data, kd=KdWeights(features=0.0)))
    assert set(stage.shapes) == {"student", "teacher"}


def test_a_fresh_student_takes_its_teachers_latents_and_others_are_refused(data, teacher, tmp_path):
    stage = RecoverStage.build(config(data, teacher=str(teacher), text_tokens=77))
    assert stage.config.text_tokens == 12 and stage.config.teacher_model == TEACHER and stage.data_folders
    changed = tiny.dit_run(tmp_path / "other", tiny.dit_config(Path("x"), clip=IMAGE, model=TEACHER))
    (changed / "vae" / "latents.json").write_text((changed / "vae" / "latents.json").read_text().replace("0.5", "0.7"))
    with pytest.raises(UserError, match="was trained on other latents"):
        _ = RecoverStage.build(config(data, teacher=str(changed))).data_folders
