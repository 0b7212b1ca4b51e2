"""Widths of a transformer: slices of its parameters, and what each has of its own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.elastic import WIDTHS, own_params, sliced, width_config, width_params
from mobile_video_jax.dit.groups import groups
from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.stacking import stack_blocks, unstack_blocks
from mobile_video_jax.nn.module import init
from mobile_video_jax.prune.surgery import pruned_config, slice_params
from mobile_video_jax.prune.units import Units
from tests.nets import normal, params_like, run

WHOLE = DitConfig(
    width=16,
    depth=4,
    heads=4,
    head_dim=6,
    ffn=24,
    time_features=8,
    layout=(("assa", 1), ("full", 2), ("full", 2), ("lcha", 1)),
    skips=((1, 2), (0, 3)),
    kv_heads=2,
    attention_cell=(1, 2, 2),
)
HALF = width_config(WHOLE, 0.5)


def inputs() -> tuple:
    return normal(0, 2, 3, 4, 4, 6), jnp.array([0.3, 0.8]), normal(2, 2, 3, 10), jnp.ones((2, 3), bool)


def shapes_of(config: DitConfig) -> dict:
    return jax.eval_shape(lambda: init(Dit(config), jax.random.key(0), *inputs()))


def plain_shapes(config: DitConfig) -> dict:
    return jax.tree.map(lambda x: x, params_like(Dit(config), *inputs()))


@pytest.fixture(scope="module")
def params() -> dict:
    return params_like(Dit(WHOLE), *inputs())


def test_a_width_has_its_share_of_channels_heads_and_ffn_and_whole_cross_attention():
    shape = HALF.block_shapes[0]
    assert (HALF.width, shape.heads, shape.cross_heads, shape.ffn, shape.kv_heads) == (8, 2, 4, 12, 2)
    assert [s.kind for s in HALF.block_shapes] == [s.kind for s in WHOLE.block_shapes]


def test_slices_are_the_first_rows_and_columns_and_of_squares_those_of_each_token(params):
    part = sliced(params, plain_shapes(HALF))
    np.testing.assert_array_equal(
        part["block_1"]["self_attention"]["out"]["kernel"],
        params["block_1"]["self_attention"]["out"]["kernel"][:12, :8],
    )
    down = params["down_1"]["squares"]["kernel"].reshape(4, 16, 16)
    np.testing.assert_array_equal(part["down_1"]["squares"]["kernel"], down[:, :8, :8].reshape(32, 8))
    up = params["up_1"]["squares"]["kernel"].reshape(16, 4, 16)
    np.testing.assert_array_equal(part["up_1"]["squares"]["kernel"], up[:8, :, :8].reshape(8, 32))
    modulation = params["modulation"]["kernel"].reshape(16, 6, 16)
    np.testing.assert_array_equal(part["modulation"]["kernel"], modulation[:8, :, :8].reshape(8, 48))
    np.testing.assert_array_equal(
        part["modulation"]["bias"], params["modulation"]["bias"].reshape(6, 16)[:, :8].ravel()
    )
    squares = part["block_0"]["self_attention"]["k_squares"]["kernel"]
    np.testing.assert_array_equal(squares, params["block_0"]["self_attention"]["k_squares"]["kernel"][:2])


def test_the_network_of_a_width_equals_the_slice_to_the_bit_scanned_or_not(params):
    """The elastic network at a width is a network of its own on shared slices and its own norms and modulation."""
    shapes = plain_shapes(HALF)
    own = own_params(params_like(Dit(HALF), *inputs(), seed=5))
    elastic = params | {WIDTHS: {"500": own}}
    part = width_params(elastic, 0.5, shapes)
    assert jax.tree.map(jnp.shape, part) == jax.tree.map(jnp.shape, shapes)
    alone = run(Dit(HALF), jax.tree.map(np.asarray, part), *inputs())
    inside = jax.jit(lambda p, *x: Dit(HALF).apply({"params": width_params(p, 0.5, shapes)}, *x))
    np.testing.assert_array_equal(inside(elastic, *inputs()), alone)

    scanned = dataclasses.replace(HALF, scan=True)
    stacked = stack_blocks(params, groups(scanned)) | {WIDTHS: {"500": stack_own(own, scanned)}}
    part_of_stacked = width_params(stacked, 0.5, stack_blocks(shapes, groups(scanned)))
    jax.tree.map(np.testing.assert_array_equal, unstack_blocks(part_of_stacked), part)


def stack_own(own: dict, config: DitConfig) -> dict:
    return stack_blocks(own, groups(config))


def test_what_a_width_does_not_share_is_norms_and_modulation(params):
    names = {
        path[-2] if path[-1] in ("scale", "kernel", "bias") else path[-1] for path in flatten_dict(own_params(params))
    }
    assert names == {"q_norm", "k_norm", "k_squares_norm", "linear_norm", "modulation"}


def test_slices_of_heads_and_channels_are_those_of_pruning():
    """With the width between blocks whole, the same arrays that masks of the first units leave, and the same output."""
    config = DitConfig(width=16, depth=2, heads=4, head_dim=6, ffn=24, time_features=8)
    params = params_like(Dit(config), *inputs())
    keep = Masks(np.ones(2), *(np.tile(np.arange(n) < kept, (2, 1)) for n, kept in ((4, 2), (4, 4), (24, 12))))
    keep = Masks(*(np.float32(mask) for mask in keep))
    smaller = pruned_config(config, keep)
    part = sliced(params, plain_shapes(smaller))
    jax.tree.map(np.testing.assert_array_equal, part, slice_params(params, config, keep))
    masked = run(Dit(config), params, *inputs(), None, keep)
    np.testing.assert_allclose(run(Dit(smaller), part, *inputs()), masked, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "width", "message"),
    [
        ({}, 0.3, "a width of 0.3 leaves 1.2 of 4 heads: use one that divides them"),
        ({"ffn": 25}, 0.5, "leaves 12.5 of 25 FFN channels"),
        ({"rope_scale": (0.3, 8.0, 8.0)}, 0.5, "have no widths"),
    ],
)
def test_widths_that_do_not_divide_are_refused(changes, width, message):
    with pytest.raises(UserError, match=message):
        width_config(dataclasses.replace(WHOLE, **changes), width)


@pytest.mark.parametrize("count", [1, 3])
def test_heads_share_keys_and_values_in_turn(count):
    """Multi-query and grouped-query attention equal one whose keys and values are repeated."""
    config = DitConfig(width=16, depth=1, heads=4, head_dim=6, ffn=24, time_features=8)
    params = params_like(Dit(dataclasses.replace(config, kv_heads=count)), *inputs())
    block = dict(params["block_0"])
    columns = np.concatenate([np.arange(6) + 6 * (head % count) for head in range(4)])
    for attention in ("self_attention", "cross_attention"):
        repeated = {n: jax.tree.map(lambda x: x[..., columns], block[attention][n]) for n in ("k", "v")}
        block[attention] = block[attention] | repeated
    expected = run(Dit(config), params | {"block_0": block}, *inputs())
    out = run(Dit(dataclasses.replace(config, kv_heads=count)), params, *inputs())
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_networks_whose_heads_share_keys_or_whose_blocks_are_joined_are_not_pruned():
    plain = dataclasses.replace(WHOLE, layout=(), skips=(), kv_heads=0)
    for changes, message in (({"kv_heads": 2}, "share keys and values"), ({"skips": ((0, 2),)}, "cannot be pruned")):
        with pytest.raises(UserError, match=message):
            Units(dataclasses.replace(plain, **changes), 4)


def test_more_heads_of_keys_than_a_block_has_are_refused():
    with pytest.raises(UserError, match="asks for blocks of at least as many heads"):
        _ = dataclasses.replace(WHOLE, kv_heads=5).block_shapes
