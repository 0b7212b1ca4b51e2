"""Modules that a sampling step reuses or leaves out: what a table says, what gates decide, and what is not computed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.carry import Carry
from mobile_video_jax.diffusion.samplers import sample
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.gates import gated, mixed_velocity, plain_outputs
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.stacking import stack_blocks
from mobile_video_jax.dit.step_table import SOLVERS
from mobile_video_jax.dit.stepwise import Stepwise
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.sampling import sample_latents
from mobile_video_jax.prune.units import Unit, Units
from tests.nets import normal, params_like

CONFIG = DitConfig(width=16, depth=2, heads=2, head_dim=8, ffn=32, time_features=8)
DIT = Dit(CONFIG)
NOISE, TEXT, MASK = normal(0, 2, 2, 2, 2, 4), normal(1, 2, 3, 5), jnp.ones((2, 3), bool)
PARAMS = params_like(DIT, NOISE, jnp.zeros(2), TEXT, MASK, scale=0.3)
SETTINGS = SampleConfig(steps=4, guidance=3.0).with_times(shift=1.0, terminal=0.0, schedule="uniform")
ALL_COMPUTED = ("....",) * 4


def sampled(dit: Dit = DIT, params=PARAMS, **changes) -> np.ndarray:
    config = dataclasses.replace(SETTINGS, **changes)
    return np.asarray(jax.jit(functools.partial(sample_latents, dit, config))(params, NOISE, TEXT, MASK))


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    return sampled()


def evaluations(stepwise: Stepwise, count: int) -> list[jax.Array]:
    """Velocities of one state after the other, at times that fall from 1."""
    inputs = lambda t: (NOISE, jnp.full(2, t), TEXT, MASK)
    state, velocities = stepwise.first_state(PARAMS, *inputs(1.0)), []
    step = jax.jit(stepwise)
    for i in range(count):
        velocity, state = step(PARAMS, state, *inputs(1 - i / count))
        velocities.append(velocity)
    return velocities


def test_a_table_that_never_skips_gives_the_plain_sampler_to_the_bit(plain):
    np.testing.assert_array_equal(sampled(reuse=ALL_COMPUTED), plain)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_of_a_table_evaluates_once_a_step_and_carries_what_the_velocity_remembers(solver):
    carry = Carry(jnp.zeros((), jnp.int32))

    def velocity(x, t):
        carry.value = carry.value + 1
        return jnp.sin(x)

    carried = sample(velocity, NOISE, steps=4, solver=solver, scan=carry.scan)
    assert carry.value == 4
    np.testing.assert_array_equal(carried, sample(lambda x, t: jnp.sin(x), NOISE, steps=4, solver=solver))


def test_gates_that_never_skip_decide_as_the_plain_network_to_the_bit():
    never = gated(DIT, jnp.zeros((4, 2, 2, 16)), guided=True)
    velocities = evaluations(never, 2)
    for i, velocity in enumerate(velocities):
        plain = jax.jit(DIT.apply)({"params": PARAMS}, NOISE, jnp.full(2, 1 - i / 2), TEXT, MASK)
        np.testing.assert_array_equal(velocity, plain)


def test_gates_and_the_table_of_their_decisions_give_the_same():
    vector = normal(5, 16)  # of the last FFN at the second step: either it or its opposite scores above the threshold
    gates = jnp.zeros((2, 2, 2, 16)).at[1, 1, 1].set(vector)
    by_gates = [evaluations(gated(DIT, sign * gates, guided=False), 2)[1] for sign in (1, -1)]
    tables = [Stepwise.of_table(DIT, ("....", f"...{letter}"), guided=False) for letter in ".b"]
    by_table = [evaluations(table, 2)[1] for table in tables]
    equal = [[np.allclose(one, other, atol=1e-6) for other in by_table] for one in by_gates]
    assert sorted(equal) == [[False, True], [True, False]]


def test_each_half_of_guidance_has_its_own_letter():
    inputs = (NOISE, jnp.full(2, 0.5), TEXT, MASK)
    whole = jax.jit(DIT.apply)({"params": PARAMS}, *inputs)
    halves = {letter: Stepwise.of_table(DIT, ("....", f".{letter}.{letter}"), guided=True) for letter in "cu"}
    for letter, changed in (("c", 0), ("u", 1)):
        step, state = jax.jit(halves[letter]), halves[letter].first_state(PARAMS, *inputs)
        _, state = step(PARAMS, state, NOISE, jnp.ones(2), TEXT, MASK)
        velocity, _ = step(PARAMS, state, *inputs)
        same = [np.allclose(velocity[i], whole[i], atol=1e-6) for i in range(2)]
        assert same == [i != changed for i in range(2)]


def test_what_is_left_out_is_what_pruning_masks_take_away():
    units = Units(CONFIG, 1)
    removed = [*(Unit("heads", 0, i) for i in range(2)), *(Unit("ffn", 1, i) for i in range(32))]
    masks = jax.tree.map(jnp.asarray, units.without(units.all(), removed))
    network = jax.jit(DIT.apply)
    inputs = NOISE, jnp.ones(2), TEXT, MASK
    (left_out,) = evaluations(Stepwise.of_table(DIT, ("-..-",), guided=False), 1)
    np.testing.assert_allclose(left_out, network({"params": PARAMS}, *inputs, None, masks), atol=1e-5)
    assert not np.allclose(left_out, network({"params": PARAMS}, *inputs), atol=1e-3)


def test_scanned_blocks_reuse_as_single_ones_do():
    table = ("....", ".b..", "b..u", "..c-")
    scanned = Dit(dataclasses.replace(CONFIG, scan=True))
    np.testing.assert_allclose(
        sampled(scanned, stack_blocks(PARAMS), reuse=table), sampled(reuse=table), atol=1e-5, rtol=1e-5
    )


def test_a_mix_of_equal_outputs_is_the_plain_velocity():
    inputs = (NOISE, jnp.full(2, 0.5), TEXT, MASK)
    velocity, outputs = jax.jit(functools.partial(plain_outputs, DIT))(PARAMS, *inputs)
    mixed, scores = jax.jit(functools.partial(mixed_velocity, DIT))(PARAMS, normal(3, 2, 2, 2, 16), outputs, *inputs)
    assert scores.shape == (2, 2, 2)
    np.testing.assert_allclose(mixed, velocity, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reuse": ("....",) * 3}, "table of 3 steps, not 4"),
        ({"reuse": ("......",) * 4}, "for 3 blocks, the transformer has 2"),
        ({"reuse": ("b...", *ALL_COMPUTED[1:])}, "the first step has no output"),
        ({"reuse": ("..x.", *ALL_COMPUTED[1:])}, "has the letter 'x'"),
        ({"reuse": ALL_COMPUTED, "solver": "heun"}, "use euler, dpmpp_2m, unipc, renoise"),
        ({"reuse": ALL_COMPUTED, "guidance_low": 0.2}, "leave out guidance_low"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        sampled(**changes)
