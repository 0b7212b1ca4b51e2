"""K-DMD's objective on linear networks, whose answers are written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.distill.captioned import CaptionedLatents
from mobile_video_jax.distill.config import DiscriminatorConfig, ObjectiveConfig
from mobile_video_jax.distill.discriminator import make_discriminator
from mobile_video_jax.distill.knowledge import KnowledgeObjective
from mobile_video_jax.distill.projectors import Projectors
from mobile_video_jax.dit.config import DitConfig
from tests.nets import normal

SIZES = DitConfig(width=24, depth=1, heads=2, head_dim=12, ffn=48, time_features=16)
CLIPS = CaptionedLatents(normal(0, 4, 2, 1, 2, 3), jnp.zeros((4, 1, 5)), jnp.ones((4, 1), bool))
GRID = jnp.array([1.0, 0.5, 0.0])


def velocity(params: dict, x_t: jax.Array, *_: jax.Array) -> jax.Array:
    return x_t @ params["w"]


def with_maps(params: dict, x_t: jax.Array, *_: jax.Array) -> tuple:
    return velocity(params, x_t), (jnp.ones_like(x_t), x_t * params["f"])


@pytest.fixture(scope="module")
def objective() -> KnowledgeObjective:
    config = ObjectiveConfig("kdmd", guidance=1.0, own_states=0.0, distance=0.0)
    discriminator, maps = make_discriminator(SIZES, DiscriminatorConfig()), Projectors(3)
    networks = {"student_maps": with_maps, "teacher_maps": with_maps, "projectors": maps}
    return KnowledgeObjective(velocity, velocity, discriminator, config, "renoise", **networks)


@pytest.fixture(scope="module")
def params() -> dict:
    whole = {name: {"w": normal(i, 3, 3), "f": jnp.float32(i)} for i, name in enumerate(PARTS, 1)}
    return whole | {"projectors": {"map_0": {"kernel": 2.0 * jnp.eye(3), "bias": jnp.zeros(3)}}}


PARTS = ("generator", "teacher", "few_step", "critic")


def test_output_and_features_are_compared_with_the_few_step_teacher_on_the_same_noisy_clips(objective, params):
    loss, metrics = objective(params, CLIPS, GRID, jax.random.key(0))
    assert metrics.keys() >= {"kd", "features", "matching", "critic_loss"} and "distance" not in metrics
    # phi(f_S) = 2 x, f_F = 3 x: |3 x - 2 x|^2 / |3 x|^2.
    np.testing.assert_allclose(metrics["features"], 1 / 9, rtol=1e-4)
    expected = metrics["kd"] + metrics["features"] + metrics["matching"] + metrics["critic_loss"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    same = params | {"generator": params["few_step"]}
    assert objective(same, CLIPS, GRID, jax.random.key(0))[1]["kd"] == 0


def test_each_player_learns_by_its_own_terms(objective, params):
    gradients = {
        trained: jax.grad(lambda p, trained=trained: objective(p, CLIPS, GRID, jax.random.key(0), trained=trained)[0])(
            params
        )
        for trained in ("all", "opponent")
    }
    moved = {
        trained: {part for part, tree in grads.items() if any(np.any(x) for x in jax.tree.leaves(tree))}
        for trained, grads in gradients.items()
    }
    assert moved == {"all": {"generator", "critic", "projectors"}, "opponent": {"critic"}}
    np.testing.assert_allclose(gradients["all"]["critic"]["w"], gradients["opponent"]["critic"]["w"], rtol=1e-5)
