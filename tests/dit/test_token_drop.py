"""Training on some of the tokens: which blocks see which, and what passes by."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_flops
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.groups import groups
from mobile_video_jax.dit.middle import check_drop, without_middle
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.stacking import stack_blocks
from mobile_video_jax.dit.token_drop import kept_tokens, params_without_middle, sparse_velocity
from tests.nets import normal, params_like, run

SIZES = DitConfig(width=12, depth=6, heads=2, head_dim=6, ffn=16, time_features=8)
KEPT = jnp.array([0, 3, 5, 20, 21, 40])


def inputs() -> tuple:
    return normal(0, 2, 3, 4, 4, 6), jnp.array([0.3, 0.8]), normal(2, 2, 3, 10), jnp.ones((2, 3), bool)


@pytest.fixture(scope="module")
def params() -> dict:
    return params_like(Dit(SIZES), *inputs())


@pytest.mark.parametrize("scan", [False, True])
def test_with_all_tokens_kept_it_is_the_network(params, scan):
    config = dataclasses.replace(SIZES, scan=scan)
    own = stack_blocks(params, groups(config)) if scan else params
    out = jax.jit(partial(sparse_velocity, Dit(config)))(own, jnp.arange(48), *inputs())
    np.testing.assert_allclose(out, run(Dit(SIZES), params, *inputs()), atol=1e-6)


def test_tokens_that_pass_by_do_not_reach_the_others_in_the_middle(params):
    """With blocks at the ends that mix nothing, kept tokens give what they give as a clip of their own positions."""
    quiet = {f"block_{i}": jax.tree.map(jnp.zeros_like, params[f"block_{i}"]) for i in (0, 1, 4, 5)}
    quiet = params | quiet | {"modulation": jax.tree.map(jnp.zeros_like, params["modulation"])}
    x, *others = inputs()
    changed = x.reshape(2, 48, 6).at[:, 1].set(7.0).reshape(x.shape)  # token 1 is not kept
    call = jax.jit(partial(sparse_velocity, Dit(SIZES)))
    before, after = (call(quiet, KEPT, clip, *others).reshape(2, 48, 6) for clip in (x, changed))
    differs = np.abs(after - before).max(axis=(0, 2)) > 1e-6
    assert differs.nonzero()[0].tolist() == [1]
    moved = call(quiet, KEPT, x.reshape(2, 48, 6).at[:, 3].set(7.0).reshape(x.shape), *others).reshape(2, 48, 6)
    assert (np.abs(moved - before).max(axis=(0, 2)) > 1e-6).nonzero()[0].tolist() == KEPT.tolist()


@pytest.mark.parametrize("scan", [False, True])
def test_clips_that_pass_by_are_those_of_the_first_and_last_blocks_alone(scan):
    """With SPRINT's fusion, a skip past the middle, as well."""
    config = dataclasses.replace(SIZES, scan=scan, skips=((1, 4),))
    params = params_like(Dit(config), *inputs())
    past = jax.jit(partial(sparse_velocity, Dit(config)))(params, KEPT, *inputs(), past=jnp.array([True, False]))
    ends = run(Dit(without_middle(config)), params_without_middle(params, config), *inputs())
    np.testing.assert_allclose(past[0], ends[0], atol=1e-6)
    assert np.abs(past[1] - ends[1]).max() > 1e-3


def test_ends_keep_what_a_pruned_model_says_of_each_block():
    blocks = tuple((2, 2, 8 * i) for i in range(1, 7))
    ends = without_middle(dataclasses.replace(SIZES, depth=6, blocks=blocks, skips=((0, 5), (1, 4))))
    assert ends.blocks == (blocks[0], blocks[1], blocks[4], blocks[5]) and ends.skips == ((0, 3), (1, 2))
    assert ends.depth == len(ends.block_shapes) == 4


@pytest.mark.slow
def test_gradients_are_the_same_where_blocks_are_computed_again(params):
    def gradient(remat: str) -> dict:
        dit = Dit(dataclasses.replace(SIZES, remat=remat))
        return jax.jit(jax.grad(lambda p: jnp.sum(sparse_velocity(dit, p, KEPT, *inputs()) ** 2)))(params)

    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), gradient("full"), gradient("none"))


def test_as_many_random_tokens_are_kept_in_every_frame():
    kept = np.asarray(kept_tokens(jax.random.key(0), 3, 16, 0.75))
    assert len(kept) == len(set(kept.tolist())) == 12 and (np.diff(kept) > 0).all()
    assert np.bincount(kept // 16).tolist() == [4, 4, 4]
    assert (kept != np.asarray(kept_tokens(jax.random.key(1), 3, 16, 0.75))).any()
    assert len(kept_tokens(jax.random.key(0), 2, 4, 0.99)) == 2


def test_middle_blocks_cost_their_share(params):
    kept = jnp.arange(12)
    sparse = count_flops(partial(sparse_velocity, Dit(SIZES)), params, kept, *inputs())
    whole = count_flops(lambda p, *x: Dit(SIZES).apply({"params": p}, *x), params, *inputs())
    assert 0.6 < sum(sparse.values()) / sum(whole.values()) < 0.85


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 4}, "more than 4 blocks"),
        ({"layout": (("full", 1),) * 2 + (("lcha", 1),) * 2 + (("full", 1),) * 2}, "middle blocks of full attention"),
        ({"causal": True}, "middle blocks of full attention"),
        ({"skips": ((2, 4),)}, r"skips that pass by the middle, as model.skips=\(\(1,4\),\)"),
    ],
)
def test_networks_that_need_all_tokens_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        check_drop(dataclasses.replace(SIZES, **changes))
