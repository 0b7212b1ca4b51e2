"""What models and units cost, against the counts of real ones."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_flops, count_parameters, written_bytes
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.nn.module import apply
from mobile_video_jax.prune.costs import PHONE_BYTES, PHONE_FLOPS, counted_costs
from mobile_video_jax.prune.surgery import pruned_config, slice_params
from mobile_video_jax.prune.units import Unit, Units, channel_group, kept_shapes
from tests.prune.tiny import CONFIG, LARGE, UNITS, clips, params

INPUTS = [jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for x in clips()]


@pytest.fixture(scope="module")
def costs() -> dict:
    return counted_costs(CONFIG, *INPUTS)


def test_costs_are_linear_in_the_sizes_of_blocks(costs):
    removed = [Unit("block", 1), Unit("heads", 0, 1), Unit("cross_heads", 2, 0), Unit("ffn", 2, 3)]
    for keep in (UNITS.all(), UNITS.without(UNITS.all(), removed)):
        dit, sliced = (
            Dit(pruned_config(CONFIG, keep)),
            jax.eval_shape(lambda p, keep=keep: slice_params(p, CONFIG, keep), params()),
        )
        assert costs["parameters"].of(kept_shapes(keep)) == count_parameters(sliced)
        counted = count_flops(lambda *x, dit=dit: apply(dit, *x), sliced, *INPUTS)
        assert costs["flops"].of(kept_shapes(keep)) == sum(counted.values())
        sixteen = Dit(dataclasses.replace(dit.config, dtype="bfloat16"))
        written = written_bytes(lambda *x, dit=sixteen: apply(dit, *x), sliced, *INPUTS)
        assert costs["activations"].of(kept_shapes(keep)) == written
        seconds = sum(counted.values()) / PHONE_FLOPS + 2 * count_parameters(sliced) / PHONE_BYTES
        assert costs["latency"].of(kept_shapes(keep)) == pytest.approx(seconds)


def test_a_unit_holds_what_the_model_has_less_of_without_it(costs):
    for cost in costs.values():
        for unit in (Unit("block", 2), Unit("heads", 0, 1), Unit("cross_heads", 1, 2), Unit("ffn", 0, 0)):
            less = cost.of(kept_shapes(UNITS.without(UNITS.all(), [unit])))
            held = cost.held(unit, UNITS, dict(enumerate(CONFIG.block_shapes)))
            assert held == pytest.approx(cost.of(CONFIG.block_shapes) - less, rel=1e-9) and held > 0


def test_a_unit_holds_its_own_share_of_a_linear_cost():
    units = (Unit("block", 1), Unit("heads", 0, 1), Unit("ffn", 2, 3))
    shapes = dict(enumerate(CONFIG.block_shapes))
    block = LARGE.block + 3 * LARGE.heads + 3 * LARGE.cross_heads + 16 * LARGE.ffn
    assert [LARGE.held(unit, UNITS, shapes) for unit in units] == [block, LARGE.heads, 4 * LARGE.ffn]


def test_units_of_unequal_blocks_are_those_that_each_has():
    units = Units(dataclasses.replace(CONFIG, blocks=((2, 1, 8), (1, 3, 4))), 4)
    keep = units.all()
    assert kept_shapes(keep) == units.shapes
    assert units.kept(keep, "cross_heads") == [Unit("cross_heads", 0), *(Unit("cross_heads", 1, i) for i in range(3))]
    assert units.kept(keep, "ffn") == [Unit("ffn", 0, 0), Unit("ffn", 0, 1), Unit("ffn", 1, 0)]
    assert units.kept(units.without(keep, [Unit("block", 0)]), "heads") == [Unit("heads", 1, 0)]
    batch = clips()
    dit = Dit(units.config)
    shapes = jax.eval_shape(lambda *x: dit.init(jax.random.key(0), *x)["params"], *batch)
    masked = jax.eval_shape(lambda p, keep: apply(dit, p, *batch, keep), shapes, jax.tree.map(jnp.asarray, keep))
    assert masked.shape == batch.x_t.shape


def test_groups_divide_the_ffn():
    assert [channel_group(dataclasses.replace(CONFIG, ffn=ffn)) for ffn in (8192, 512, 8)] == [64, 32, 1]
    with pytest.raises(UserError, match="groups of 5 channels"):
        Units(CONFIG, 5)
