"""A masked transformer and the smaller one that is cut out of it."""

import dataclasses

import jax
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.layers import stack_blocks
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.prune.surgery import block_map, pruned_config, slice_params
from mobile_video_jax.prune.units import Unit
from tests.nets import params_like, run
from tests.prune.tiny import CONFIG, UNITS, clips, params

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


@pytest.mark.parametrize(("scan", "removed"), [(False, EACH_ITS_OWN), (True, ALL_ALIKE)])
def test_zero_masked_equals_sliced(scan, removed):
    config = dataclasses.replace(CONFIG, scan=scan)
    keep, full, batch = UNITS.without(UNITS.all(), removed), params(scan), clips()
    student = Dit(pruned_config(config, keep))
    sliced = slice_params(full, config, keep)
    assert jax.tree.map(np.shape, sliced) == jax.tree.map(np.shape, params_like(student, *batch))
    assert student.config.scan == scan
    masked = run(Dit(config), full, *batch, keep)
    np.testing.assert_allclose(run(student, sliced, *batch), masked, atol=1e-5)
    assert np.abs(run(Dit(config), full, *batch, UNITS.all()) - masked).max() > 0.1


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
