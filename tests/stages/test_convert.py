"""Conversion of a trained transformer to another layout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.features import velocity_and_features
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.stacking import stack_blocks
from mobile_video_jax.dit.teacher_forcing import block_distances
from mobile_video_jax.stages.config import ConvertTraining
from mobile_video_jax.stages.convert import ConvertStage, transferred
from tests import tiny
from tests.nets import normal, params_like

TEACHER = DitConfig(width=12, depth=3, heads=2, head_dim=6, ffn=16, time_features=8)
LAYOUT = (("full", 1), ("full", 2), ("lcha", 1))


def inputs() -> tuple:
    return normal(0, 2, 3, 4, 4, 6), jnp.array([0.3, 0.8]), normal(2, 2, 3, 10), jnp.ones((2, 3), bool)


def test_each_block_is_compared_on_the_teachers_input():
    """A copied block has distance 0, also behind blocks that differ from the teacher's."""
    teacher, student = Dit(TEACHER), Dit(dataclasses.replace(TEACHER, layout=(LAYOUT[1], LAYOUT[0], LAYOUT[2])))
    params = params_like(teacher, *inputs())
    copied = transferred(params_like(student, *inputs(), seed=2), stack_blocks(params))

    @jax.jit
    def distances(params, copied):
        _, features = velocity_and_features(teacher, params, *inputs())
        return block_distances(student, copied, features, *inputs())

    low, same, linear = distances(params, copied)
    assert same < 1e-5 and low > 0.01 and linear > 0.01


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> ConvertStage:
    root = tmp_path_factory.mktemp("convert")
    data = tiny.latents(root / "latents")
    scanned = dataclasses.replace(TEACHER, scan=True)
    teacher = tiny.dit_run(root / "dit", tiny.dit_config(data, model=scanned, time_shift=2.0))
    names = {field.name for field in dataclasses.fields(ConvertTraining)}
    plain = tiny.dit_config(
        data, init_from=str(teacher), model=dataclasses.replace(TEACHER, layout=LAYOUT, causal=True)
    )
    values = {name: getattr(plain, name) for name in names if hasattr(plain, name)}
    return ConvertStage.build(ConvertTraining(**values | {"stage": "convert"}))


def test_the_student_is_the_teacher_in_another_layout_and_learns_blocks_alone(stage):
    model = stage.config.transformer
    assert stage.config.time_shift == 2.0
    assert model.layout == LAYOUT and model.causal and not model.scan and model.width == TEACHER.width
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), ("data", "fsdp", "tensor"))
    params = stage.pretrained(
        {"student": stage.denoiser.abstract_params(mesh), "teacher": stage.teacher.abstract_params(mesh)}
    )
    kernel = params["teacher"]["blocks"]["block"]["ffn"]["up"]["kernel"]
    np.testing.assert_array_equal(params["student"]["block_2"]["ffn"]["up"]["kernel"], kernel[2])

    batch = {name: jnp.zeros(x.shape, x.dtype) for name, x in stage.abstract_batch(1).items()}
    batch |= {"latents": normal(0, *batch["latents"].shape), "text_mask": jnp.ones_like(batch["text_mask"])}
    gradient = jax.jit(jax.grad(lambda p: stage.loss(params | {"student": p}, batch, jax.random.key(0))[0]))(
        params["student"]
    )
    sizes = {name: float(sum(jnp.abs(x).sum() for x in jax.tree.leaves(part))) for name, part in gradient.items()}
    assert sizes["block_2"] > 0 and sizes["down_1"] > 0
    assert sizes["modulation"] == sizes["patch_in"] == sizes["output"] == 0


def test_a_conversion_without_a_layout_is_refused():
    with pytest.raises(UserError, match="list a kind of attention and a resolution for each block"):
        ConvertStage.build(ConvertTraining())
