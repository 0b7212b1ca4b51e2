"""The distillation objective: gradients of each network, and a student that learns a distribution in one step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.timesteps import time_grid
from mobile_video_jax.distill.captioned import CaptionedLatents
from mobile_video_jax.distill.config import DiscriminatorConfig, ObjectiveConfig
from mobile_video_jax.distill.discriminator import make_discriminator
from mobile_video_jax.distill.objective import CRITICS, Objective
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.nn.module import apply
from mobile_video_jax.train.config import OptimizerConfig, PlayersOptimizerConfig
from mobile_video_jax.train.optimizer import make_optimizer
from tests.nets import normal, params_like, randomly

SIZES = DitConfig(width=24, depth=1, heads=2, head_dim=12, ffn=48, time_features=16)
DIT = functools.partial(apply, Dit(SIZES))
METHODS = {
    "adversarial": ObjectiveConfig(guidance=2.0, target="teacher", own_states=0.0),
    "dmd": ObjectiveConfig(method="dmd", kd=0.0, distance=0.0, own_states=0.0),
    "dmd2": ObjectiveConfig(method="dmd2", kd=0.0, distance=0.0, rollout=True, mismatched=1.0, real="teacher"),
}
# The trained critic of each method, and the generator's term that depends on it.
CRITIC_TERMS = {
    "adversarial": ("discriminator", "adversarial"),
    "dmd": ("critic", "matching"),
    "dmd2": ("discriminator", "adversarial"),
}


def clips(count: int = 4) -> CaptionedLatents:
    mask = jnp.asarray(np.arange(3) < np.arange(count)[:, None] % 3 + 1)
    return CaptionedLatents(normal(0, count, 2, 1, 2, 4), normal(1, count, 3, 5), mask)


def make_objective(config: ObjectiveConfig) -> Objective:
    return Objective(DIT, DIT, make_discriminator(SIZES, DiscriminatorConfig(trunk_blocks=1)), config)


def parameters(objective: Objective, batch: CaptionedLatents, scale: float = 0.2) -> dict:
    inputs = (batch.latents, jnp.zeros(len(batch.latents)), batch.text, batch.text_mask)
    params = {
        name: params_like(Dit(SIZES), *inputs, scale=scale, seed=i) for i, name in enumerate(("generator", "teacher"))
    }
    critics = CRITICS[objective.config.method]
    if "critic" in critics:
        params["critic"] = params_like(Dit(SIZES), *inputs, scale=scale, seed=2)
    if "discriminator" in critics:
        grid, heads = batch.latents.shape[1:4], objective.discriminator.heads
        features = jax.eval_shape(objective.discriminator.features, params["teacher"], *inputs)
        shapes = jax.eval_shape(lambda x: heads.init(jax.random.key(0), x, grid), features)
        params["discriminator"] = randomly(shapes["params"], scale)
    return params


@pytest.mark.parametrize("method", METHODS)
def test_the_teacher_is_frozen_and_generator_and_critic_are_constants_to_each_other(method):
    objective, (critic, term) = make_objective(METHODS[method]), CRITIC_TERMS[method]
    params, batch = parameters(objective, clips()), clips()

    @jax.jit
    def gradients(params: dict, factor: jax.Array) -> tuple:
        """Gradients of the loss with the critic's term times `factor`, and the metrics."""

        def loss(p: dict) -> tuple:
            value, metrics = objective(p, batch, time_grid(2, shift=1.0), jax.random.key(0))
            return value + (factor - 1) * getattr(objective.config, term) * metrics[term], metrics

        return jax.grad(loss, has_aux=True)(params)

    (grads, metrics), (without, _) = gradients(params, jnp.float32(1)), gradients(params, jnp.float32(0))
    assert norm(grads["teacher"]) == 0 < norm(grads["generator"]) and norm(grads[critic]) > 0
    assert norm(jax.tree.map(jnp.subtract, grads["generator"], without["generator"])) > 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), grads[critic], without[critic])
    expected = {"adversarial": {"kd", "distance", "adversarial", "discriminator_loss", "r1"}, "dmd": {"critic_loss"}}
    expected["dmd2"] = {"critic_loss", "mismatched_accuracy", "matching"}
    assert expected[method] <= metrics.keys() and all(np.isfinite(value) for value in metrics.values())


def norm(tree: dict) -> float:
    return float(optax.tree.norm(tree))


@pytest.mark.parametrize("trained", ["generator", "opponent"])
def test_a_step_of_one_player_has_no_gradient_of_the_other(trained):
    objective, batch = make_objective(METHODS["adversarial"]), clips()
    params = parameters(objective, batch)
    loss = lambda p: objective(p, batch, time_grid(2, shift=1.0), jax.random.key(0), trained=trained)
    grads, metrics = jax.jit(jax.grad(loss, has_aux=True))(params)
    moving, still = ("generator", "discriminator") if trained == "generator" else ("discriminator", "generator")
    assert norm(grads[still]) == 0 < norm(grads[moving]) and ("kd" in metrics) == (trained == "generator")


def test_conditioning_frames_are_seen_as_they_are_and_have_no_error():
    """A student whose weights are not the teacher's differs from it everywhere but at a conditioning frame."""
    objective = make_objective(METHODS["adversarial"])
    batch = clips()._replace(mask=None, conditioned=jnp.array([True, True, False, False]))
    params = parameters(objective, batch)
    x_t, t = normal(5, *batch.latents.shape), jnp.full(4, 0.5)
    student, teacher = (batch.velocity(objective.student, params[part])(x_t, t) for part in ("generator", "teacher"))
    x0 = x_t - 0.5 * student
    np.testing.assert_allclose(x0[:2, 0], batch.latents[:2, 0], atol=1e-6)
    np.testing.assert_array_equal(student[:2, 0], teacher[:2, 0])
    assert np.all(np.abs(student - teacher)[2:, 0].max(axis=(1, 2, 3)) > 1e-3)
    network_input, times, *_ = batch.inputs(x_t, t)
    np.testing.assert_array_equal(times, [[0, 0.5], [0, 0.5], [0.5, 0.5], [0.5, 0.5]])
    np.testing.assert_array_equal(network_input[:2, 0], batch.latents[:2, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "gan"}, "method=gan: use adversarial or dmd or dmd2 or consistency or kd"),
        ({"teacher_steps": 0}, "teacher_steps=0: use a whole number from 1"),
        ({"own_states": 2.0}, "own_states=2.0: use a number from 0 to 1"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        from_mapping(ObjectiveConfig, change)


def test_flow_matching_on_the_data_is_kept_beside_the_other_losses():
    """Of data that are 0 the velocity is x_t / t; what lies in the padding has no part in it."""
    exact = lambda factor, x_t, t, *_: factor * x_t / t[:, None, None, None, None]
    batch = clips(16)
    mask = jnp.broadcast_to(jnp.arange(2)[:, None, None] < 1, (16, 2, 1, 2))
    batch = batch._replace(latents=jnp.where(mask[..., None], 0.0, 9.0), mask=mask)
    config = ObjectiveConfig("kd", guidance=1.0, flow=1.0)
    objective = Objective(exact, exact, make_discriminator(SIZES, DiscriminatorConfig()), config)
    of = jax.jit(
        lambda factor: objective(
            {"generator": factor, "teacher": 1.0}, batch, time_grid(2, shift=1.0), jax.random.key(0)
        )
    )
    loss, metrics = of(1.0)
    assert loss < 1e-4 and metrics["flow"] < 1e-4
    assert 0.15 < of(1.5)[1]["flow"] < 0.35  # a quarter of the noise's variance
    with pytest.raises(UserError, match="method=consistency has no other loss: set objective.flow=0"):
        dataclasses.replace(config, method="consistency")


def test_players_are_updated_in_their_own_steps():
    config = PlayersOptimizerConfig(
        learning_rate=1.0, warmup=0.0, schedule="constant", generator_every=2, generator_alone=3
    )
    assert [bool(config.updates_generator(i)) for i in range(7)] == [True, True, True, False, True, False, True]
    assert config.generator_updates(7) == 5
    optimizer = make_optimizer(config, 7)
    params = {"generator": {"w": jnp.ones(2)}, "critic": {"w": jnp.ones(2)}}
    state, moved = optimizer.init(params), []
    update = jax.jit(lambda state: optimizer.update(params, state, params))
    for _ in range(6):
        updates, state = update(state)
        moved.append({part: bool(jnp.any(leaf["w"] != 0)) for part, leaf in updates.items()})
    assert [step["generator"] for step in moved] == [False, True, True, False, True, False]  # the first has rate 0
    assert not any(step["critic"] for step in moved[:3]) and all(step["critic"] for step in moved[4:])


def test_the_generator_is_updated_every_few_steps():
    config = PlayersOptimizerConfig(learning_rate=1.0, warmup=0.0, schedule="constant", generator_every=3)
    optimizer = make_optimizer(config, 30)
    params = {"generator": {"w": jnp.ones(2)}, "critic": {"w": jnp.ones(2)}}
    state, moved = optimizer.init(params), []
    update = jax.jit(lambda state: optimizer.update(params, state, params))
    for _ in range(6):
        updates, state = update(state)
        moved.append({part: bool(jnp.any(leaf["w"] != 0)) for part, leaf in updates.items()})
    assert [step["generator"] for step in moved] == [False, False, False, False, False, True]
    assert all(step["critic"] for step in moved[1:])
    with pytest.raises(UserError, match="generator_every=0: use a whole number from 1"):
        dataclasses.replace(config, generator_every=0)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adversarial", "dmd"])
def test_a_student_learns_two_points_in_one_step(method):
    """Latents are +1 or -1 in all channels at random, and no caption says which: one call must choose."""
    config = ObjectiveConfig(
        method, 1.0, own_states=0.0, adversarial=1.0, kd=0.0, distance=0.0, r1=0.1, r1_form="exact"
    )
    objective = make_objective(config)
    shape, count = (1, 1, 1, 2), 64
    empty = CaptionedLatents(jnp.zeros((count, *shape)), jnp.zeros((count, 1, 3)), jnp.ones((count, 1), bool))
    params = parameters(objective, empty)
    sample = lambda key: (
        jnp.where(jax.random.bernoulli(key, 0.5, (count, 1, 1, 1, 1)), 1.0, -1.0) * jnp.ones((1, *shape))
    )
    params["teacher"] = _trained(params["teacher"], empty, sample)
    params |= {part: params["teacher"] for part in ("generator", "critic") if part in params}
    one = OptimizerConfig(learning_rate=3e-3, schedule="constant", weight_decay=0.0, beta1=0.0)
    slower = dataclasses.replace(one, learning_rate=1e-3)
    optimizer = make_optimizer(PlayersOptimizerConfig(**dataclasses.asdict(slower), opponent=one), 800)
    trained = {part: tree for part, tree in params.items() if part != "teacher"}

    @jax.jit
    def step(carry: tuple, key: jax.Array) -> tuple:
        trained, state = carry
        batch = empty._replace(latents=sample(key))
        loss = lambda p: objective(p | {"teacher": params["teacher"]}, batch, jnp.array([1.0, 0.0]), key)[0]
        updates, state = optimizer.update(jax.grad(loss)(trained), state, trained)
        return (optax.apply_updates(trained, updates), state), None

    run = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys)[0])
    trained, _ = run((trained, optimizer.init(trained)), jax.random.split(jax.random.key(5), 800))
    noise = jax.random.normal(jax.random.key(9), (count, *shape))
    in_one_step = lambda p: np.asarray(noise - DIT(p, noise, jnp.ones(count), empty.text, empty.text_mask))
    share_near_data = lambda x: np.mean(np.abs(np.abs(x) - 1) < 0.35)
    samples = in_one_step(trained["generator"])
    assert share_near_data(samples) > 0.8 and share_near_data(in_one_step(params["teacher"])) < 0.2
    assert 0.2 < np.mean(samples[..., 0] > 0) < 0.8
    assert np.mean(np.sign(samples[..., 0]) == np.sign(samples[..., 1])) > 0.9


def _trained(params: dict, batch: CaptionedLatents, sample) -> dict:
    """A teacher trained on the same data by flow matching."""
    optimizer = optax.adam(3e-3)

    def step(carry: tuple, key: jax.Array) -> tuple:
        params, state = carry
        keys = jax.random.split(key, 3)
        x0, noise = sample(keys[0]), jax.random.normal(keys[1], batch.latents.shape)
        t = jax.random.uniform(keys[2], (len(batch.latents),))
        column = t[:, None, None, None, None]

        def loss(p: dict) -> jax.Array:
            velocity = DIT(p, (1 - column) * x0 + column * noise, t, batch.text, batch.text_mask)
            return jnp.mean((velocity - noise + x0) ** 2)

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(3), 800)
    return jax.jit(lambda carry: jax.lax.scan(step, carry, keys)[0])((params, optimizer.init(params)))[0]
