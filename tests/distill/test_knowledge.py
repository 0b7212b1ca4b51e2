"""K-DMD's objective on linear networks, whose answers are written out."""

from collections.abc import Callable

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


def test_what_is_compared_and_who_learns_by_which_term(objective, params):
    def of(trained: str) -> Callable[[dict], tuple]:
        """Gradients and metrics of what is trained."""
        loss = lambda p: objective(p, CLIPS, GRID, jax.random.key(0), trained=trained)
        return jax.jit(jax.value_and_grad(loss, has_aux=True))

    whole = of("all")
    (loss, metrics), grads = whole(params)
    assert metrics.keys() >= {"kd", "features", "matching", "critic_loss"} and "distance" not in metrics
    # phi(f_S) = 2 x, f_F = 3 x, of the same noisy clips: |3 x - 2 x|^2 / |3 x|^2.
    np.testing.assert_allclose(metrics["features"], 1 / 9, rtol=1e-4)
    expected = metrics["kd"] + metrics["features"] + metrics["matching"] + metrics["critic_loss"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    same = params | {"generator": params["few_step"]}
    assert metrics["kd"] > 0.1 and whole(same)[0][1]["kd"] == 0
    assert moved(grads) == {"generator", "critic", "projectors"}
    (_, _), alone = of("opponent")(params)
    assert moved(alone) == {"critic"}
    np.testing.assert_allclose(alone["critic"]["w"], grads["critic"]["w"], rtol=1e-5)


def test_conditioning_frames_are_held_where_maps_are_read(params):
    clips = CLIPS._replace(conditioned=jnp.array([True, True, False, False]))
    x_t, t = normal(5, *clips.latents.shape), jnp.full(4, 0.5)
    held, _ = clips.velocity_and_maps(with_maps, params["generator"], x_t, t)
    np.testing.assert_allclose(held, clips.velocity(velocity, params["generator"])(x_t, t), atol=1e-6)
    assert np.abs(held - velocity(params["generator"], x_t))[:2].max() > 0.1


def moved(grads: dict) -> set:
    """The parts with a gradient."""
    return {part for part, tree in grads.items() if any(np.any(x) for x in jax.tree.leaves(tree))}
