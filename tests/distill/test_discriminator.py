"""The discriminator: a teacher's frozen first blocks, and heads on their features."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.distill.config import DiscriminatorConfig
from mobile_video_jax.distill.discriminator import make_discriminator
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.features import backbone_params, velocity_and_features
from mobile_video_jax.dit.model import Dit
from tests.nets import normal, params_like, randomly

# A pruned teacher: blocks differ.
TEACHER = DitConfig(width=24, head_dim=12, time_features=16, blocks=((2, 1, 32), (1, 2, 16), (2, 2, 16)))
GRID = (3, 2, 4)


def inputs() -> tuple:
    text_mask = jnp.asarray(np.arange(5) < np.array([[3], [5]]))
    mask = jnp.asarray(np.broadcast_to(np.array([[1, 1, 0], [1, 1, 1]], bool)[:, :, None, None], (2, *GRID)))
    return normal(0, 2, *GRID, 6), jnp.array([0.3, 0.8]), normal(2, 2, 5, 10), text_mask, mask


@pytest.fixture(scope="module")
def teacher() -> dict:
    return params_like(Dit(TEACHER), *inputs())


def test_the_backbone_is_the_teachers_first_blocks(teacher):
    discriminator = make_discriminator(TEACHER, DiscriminatorConfig(trunk_blocks=2))
    assert backbone_params(discriminator.backbone, teacher) is teacher
    config = dataclasses.replace(TEACHER, blocks=(), depth=3, heads=2, ffn=16, scan=True)
    params, discriminator = (
        params_like(Dit(config), *inputs()),
        make_discriminator(config, DiscriminatorConfig(trunk_blocks=2)),
    )
    features = jax.jit(lambda *x: discriminator.features(params, *x)[0].x)(*inputs())
    _, expected = jax.jit(lambda *x: velocity_and_features(Dit(config), params, *x))(*inputs())
    np.testing.assert_allclose(features, expected[1], atol=1e-5)


@pytest.mark.parametrize("head", ["dit", "conv"])
def test_a_head_gives_one_logit_per_clip_and_ignores_padding(teacher, head):
    discriminator = make_discriminator(TEACHER, DiscriminatorConfig(head, head_blocks=2, trunk_blocks=2))
    features = jax.eval_shape(discriminator.features, teacher, *inputs())
    shapes = jax.eval_shape(lambda x: discriminator.heads.init(jax.random.key(0), x, GRID)["params"], features)

    @jax.jit
    def logits(params: dict, x: jax.Array) -> jax.Array:
        return discriminator.logits(params, discriminator.features(teacher, x, *inputs()[1:]), GRID)

    params, x, mask = randomly(shapes, 0.3), inputs()[0], inputs()[4]
    out = logits(params, x)
    assert out.shape == (2, 1) and abs(out[0] - out[1])[0] > 1e-3
    padded = jnp.where(mask[..., None], x, 1e2)
    np.testing.assert_allclose(logits(params, padded), out, atol=1e-4)


def test_heads_have_about_as_many_parameters():
    config = DitConfig(width=48, depth=2, heads=4, head_dim=12, ffn=192, time_features=16)
    teacher = params_like(Dit(config), *inputs())

    def count(head: str) -> int:
        discriminator = make_discriminator(config, DiscriminatorConfig(head, trunk_blocks=1))
        features = jax.eval_shape(discriminator.features, teacher, *inputs())
        return count_parameters(
            jax.eval_shape(lambda x: discriminator.heads.init(jax.random.key(0), x, GRID), features)
        )

    assert abs(count("conv") / count("dit") - 1) < 0.2


def test_each_tap_has_its_logits_and_starts_from_the_teachers_next_block(teacher):
    settings = DiscriminatorConfig(head_start="teacher", taps=(1, 2), pooling="frame")
    discriminator = make_discriminator(TEACHER, settings)
    features = jax.eval_shape(discriminator.features, teacher, *inputs())
    shapes = jax.eval_shape(lambda x: discriminator.heads.init(jax.random.key(0), x, GRID)["params"], features)
    started = discriminator.started(randomly(shapes, 0.3), teacher)
    for tap in (1, 2):
        block = started[f"tap_{tap - 1}"]["block_0"]
        jax.tree.map(np.testing.assert_array_equal, block, teacher[f"block_{tap}"])
    logits = jax.jit(lambda p, *x: discriminator.logits(p, discriminator.features(teacher, *x), GRID))(
        started, *inputs()
    )
    mask = discriminator.logit_mask(inputs()[4], GRID)
    assert logits.shape == mask.shape == (2, 2 * GRID[0])
    np.testing.assert_array_equal(mask[0], [True, True, False] * 2)
    with pytest.raises(UserError, match="a block of the teacher after each that a head reads"):
        make_discriminator(TEACHER, dataclasses.replace(settings, taps=(1, 3)))


def test_more_blocks_than_the_teacher_has_are_refused():
    with pytest.raises(UserError, match="a transformer of 3 blocks has no first 4: use trunk_blocks from 1 to 3"):
        make_discriminator(TEACHER, DiscriminatorConfig(trunk_blocks=4))
