"""A masked transformer and the smaller one that is cut out of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.features import first_blocks
from mobile_video_jax.dit.groups import groups
from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.stacking import stack_blocks
from mobile_video_jax.nn.attention.config import KIND_NAMES
from mobile_video_jax.prune.surgery import block_map, pruned_config, slice_params
from mobile_video_jax.prune.units import Unit, Units
from tests.nets import normal, params_like, run
from tests.prune.tiny import ACROSS_HEADS, CONFIG, LAYOUT, UNITS, clips, params

EACH_ITS_OWN = [
    Unit("block", 1),
    *(Unit("heads", 0, 1), Unit("cross_heads", 2, 0), Unit("cross_heads", 2, 1)),
    *(Unit("ffn", 0, 2), Unit("ffn", 2, 0), Unit("ffn", 2, 3)),
]
ALL_ALIKE = [
    Unit("block", 0),
    *(Unit(kind, i, (i + j) % 3) for j, kind in enumerate(("heads", "cross_heads")) for i in range(3)),
    *(Unit("ffn", i, i) for i in range(3)),
]


SAME_HEADS = [Unit("block", 1), *(Unit(kind, i, 1) for kind in ("heads", "cross_heads") for i in range(3))]


@pytest.mark.parametrize(
    ("base", "scan", "removed"),
    [
        (CONFIG, False, EACH_ITS_OWN),
        (CONFIG, True, ALL_ALIKE),
        (ACROSS_HEADS, False, EACH_ITS_OWN),
        (ACROSS_HEADS, True, SAME_HEADS),
    ],
)
def test_zero_masked_equals_sliced(base, scan, removed):
    """Scanned or not: masked is always the unscanned one, whose program serves both."""
    config = dataclasses.replace(base, scan=scan)
    keep, full, batch = UNITS.without(UNITS.all(), removed), params(base), clips()
    student = Dit(pruned_config(config, keep))
    sliced = slice_params(stack_blocks(full) if scan else full, config, keep)
    assert jax.tree.map(np.shape, sliced) == jax.tree.map(np.shape, params_like(student, *batch))
    assert student.config.scan == scan
    masked = run(Dit(base), full, *batch, keep)
    np.testing.assert_allclose(run(student, sliced, *batch), masked, atol=1e-5)
    assert np.abs(run(Dit(base), full, *batch, UNITS.all()) - masked).max() > 0.1


def test_a_scanned_model_of_unequal_blocks_is_cut_into_one_tree_a_block():
    config, keep = dataclasses.replace(CONFIG, scan=True), UNITS.without(UNITS.all(), EACH_ITS_OWN)
    assert not pruned_config(config, keep).scan
    cut, expected = slice_params(stack_blocks(params()), config, keep), slice_params(params(), CONFIG, keep)
    jax.tree.map(np.testing.assert_array_equal, cut, expected)


def test_the_config_names_the_sizes_and_the_map_the_sources():
    keep = UNITS.without(UNITS.all(), EACH_ITS_OWN)
    assert pruned_config(CONFIG, keep).blocks == ((2, 3, 12), (3, 1, 8))
    assert block_map(keep) == (0, 2)
    alike = pruned_config(CONFIG, UNITS.without(UNITS.all(), ALL_ALIKE))
    assert alike == dataclasses.replace(CONFIG, depth=2, heads=2, ffn=12)


def test_heads_keep_the_angles_that_they_were_made_with():
    keep = UNITS.without(UNITS.all(), ALL_ALIKE)
    scanned = dataclasses.replace(ACROSS_HEADS, scan=True)
    once = pruned_config(scanned, keep)
    assert once == dataclasses.replace(ACROSS_HEADS, depth=2, heads=2, ffn=12, rope_heads=((0, 2), (0, 1)))
    twice = pruned_config(once, Masks(np.ones(2), np.array([[0, 1], [1, 0]]), np.eye(2), np.ones((2, 12))))
    assert twice.rope_heads == ((2,), (0,))
    assert first_blocks(once, 1).config.rope_heads == ((0, 2),)
    firsts = UNITS.without(UNITS.all(), [Unit(kind, i, 2) for kind in ("heads", "cross_heads") for i in range(3)])
    assert pruned_config(scanned, firsts) == dataclasses.replace(scanned, heads=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_heads": ((0, 1, 2),) * 2}, "rope_heads does not fit the blocks"),
        ({"rope_heads": ((0, 1, 3),) * 3}, "which of the 3 "),
        ({"heads": 4}, "which of the 3 "),
        ({"rope_heads": ((0, 1, 2), (2, 1, 0), (0, 1, 2)), "scan": True}, "cannot be scanned"),
    ],
)
def test_angles_for_other_heads_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        _ = dataclasses.replace(ACROSS_HEADS, **change).block_rope_heads


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ([Unit("block", i) for i in range(3)], "keep at least one"),
        ([Unit("heads", 1, i) for i in range(3)], "block 1 would be left without heads"),
    ],
)
def test_a_model_of_nothing_is_refused(removed, message):
    with pytest.raises(UserError, match=message):
        pruned_config(CONFIG, UNITS.without(UNITS.all(), removed))


@pytest.mark.parametrize(
    ("kind", "causal"),
    [
        *((kind, False) for kind in KIND_NAMES if kind != "linear"),
        ("chunked", True),
        pytest.param("linear", False, marks=pytest.mark.slow),  # all that it computes is in `lcha`
    ],
)
def test_every_kind_is_sliced_as_it_is_masked(kind, causal):
    """Two stages of half the resolution, which meet when the block between them goes, and one of them too."""
    layout = ((kind, 2), ("full", 1), (kind, 2), (kind, 2), (kind, 1))
    config = dataclasses.replace(LAYOUT, depth=5, layout=layout, causal=causal)
    units, batch = Units(config, 4), even_clips()
    full = params_like(Dit(config), *batch, scale=0.2)
    removed = [*(Unit("block", i) for i in (1, 2)), Unit("heads", 0, 1), Unit("heads", 3, 0), Unit("heads", 4, 2)]
    keep = units.without(units.all(), [*removed, Unit("cross_heads", 3, 1), Unit("ffn", 0, 2)])
    pruned = pruned_config(config, keep)
    assert pruned.layout == ((kind, 2), (kind, 2), (kind, 1)) and pruned.new_stages == (1,)
    sliced = slice_params(full, config, keep)
    assert jax.tree.map(np.shape, sliced) == jax.tree.map(np.shape, params_like(Dit(pruned), *batch))
    masked = run(Dit(config), full, *batch, None, keep)
    np.testing.assert_allclose(run(Dit(pruned), sliced, *batch), masked, atol=2e-5)
    scanned = dataclasses.replace(config, scan=True)
    stacked = slice_params(stack_blocks(full, groups(scanned)), scanned, keep)
    jax.tree.map(np.testing.assert_array_equal, stacked, stack_blocks(sliced, groups(pruned)))


def test_a_stage_without_blocks_is_gone():
    units, batch = Units(LAYOUT, 4), even_clips()
    full = params_like(Dit(LAYOUT), *batch, scale=0.4)
    keep = units.without(units.all(), [Unit("block", 1), Unit("block", 2)])
    sliced = slice_params(full, LAYOUT, keep)
    assert not any(name.startswith(("down", "up")) for name in sliced)
    masked = run(Dit(LAYOUT), full, *batch, None, keep)
    np.testing.assert_allclose(run(Dit(pruned_config(LAYOUT, keep)), sliced, *batch), masked, atol=2e-5)


def even_clips() -> tuple:
    """Two clips of 3x4x4 latents."""
    return normal(0, 2, 3, 4, 4, 4), jnp.array([0.3, 0.8]), normal(1, 2, 3, 5), jnp.ones((2, 3), bool)
