"""Costs of models and units, against the counts of real ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import dit as dit_configs
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_flops, count_parameters, written_bytes
from mobile_video_jax.cost.phone.roofline import call_seconds
from mobile_video_jax.cost.phone.trace import ops_of_network
from mobile_video_jax.dit.config import BlockShape
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.nn.module import apply, init
from mobile_video_jax.prune.costs import Costs, counted_costs, phone_latency
from mobile_video_jax.prune.surgery import pruned_config, slice_params
from mobile_video_jax.prune.units import Unit, Units, channel_group, kept_shapes
from mobile_video_jax.stages.config import DitTraining
from tests.prune.tiny import CONFIG, LARGE, LAYOUT, UNITS, clips, params

INPUTS = [jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for x in jax.eval_shape(clips.__wrapped__)]
EVEN_INPUTS = [jax.ShapeDtypeStruct((1, 3, 4, 4, 4), jnp.float32), *INPUTS[1:4]]


@pytest.fixture(scope="module")
def costs() -> Costs:
    return counted_costs(CONFIG, *INPUTS)


def test_costs_are_those_of_the_sliced_model(costs):
    removed = [Unit("block", 1), Unit("heads", 0, 1), Unit("cross_heads", 2, 0), Unit("ffn", 2, 3)]
    for keep in (UNITS.all(), UNITS.without(UNITS.all(), removed)):
        kept = kept_shapes(keep, CONFIG.block_shapes)
        dit, sliced = (
            Dit(pruned_config(CONFIG, keep)),
            jax.eval_shape(lambda p, keep=keep: slice_params(p, CONFIG, keep), params()),
        )
        assert costs["parameters"].of(kept) == count_parameters(sliced)
        counted = count_flops(lambda *x, dit=dit: apply(dit, *x), sliced, *INPUTS)
        assert costs["flops"].of(kept) == sum(counted.values())
        sixteen = Dit(dataclasses.replace(dit.config, dtype="bfloat16"))
        written = written_bytes(lambda *x, dit=sixteen: apply(dit, *x), sliced, *INPUTS)
        assert costs["activations"].of(kept) == written
        assert costs["latency"].of(kept) == pytest.approx(call_seconds(ops_of_network(dit, *INPUTS)))


def test_a_removal_saves_what_the_model_has_less_of_without_it(costs):
    shapes = dict(enumerate(CONFIG.block_shapes))
    removals = [
        [Unit("block", 2)],
        [Unit("heads", 0, 1)],
        [Unit("cross_heads", 1, 2), Unit("heads", 1, 0)],
        [Unit("ffn", 0, 0), Unit("ffn", 0, 1), Unit("ffn", 1, 3)],
    ]
    for cost in costs.values():
        for removal in removals:
            less = cost.of(kept_shapes(UNITS.without(UNITS.all(), removal), CONFIG.block_shapes))
            saved = cost.saved(removal, UNITS, shapes)
            assert saved == pytest.approx(cost.of(CONFIG.block_shapes) - less, rel=1e-9) and saved > 0


def test_the_phones_time_is_exact_at_traced_sizes_and_near_between_them():
    """The paper's server model: a tensor of more than 2 MB makes traffic, so the time has jumps in the sizes."""
    denoiser = Denoiser(from_mapping(DitTraining, dit_configs.get_config("server").to_dict()))
    shapes = denoiser.input_shapes(1)
    inputs = shapes["latents"], jax.ShapeDtypeStruct((1,), jnp.float32), shapes["text"], shapes["text_mask"]
    latency = phone_latency(denoiser.config.model, *inputs)

    def traced(*sizes: tuple[int, int, int]) -> float:
        config = dataclasses.replace(denoiser.config.model, blocks=sizes, scan=False)
        return call_seconds(ops_of_network(Dit(config), *inputs))

    exact = [((32, 32, 8192), (20, 20, 6144)), ((8, 28, 2048),)]
    near = [((18, 20, 5000),), ((26, 14, 6656),), ((23, 16, 6336),), ((30, 30, 4480), (17, 32, 7488))]
    for models, tolerance in ((exact, 1e-9), (near, 0.04)):
        for sizes in models:
            assert latency.of([BlockShape(*size) for size in sizes]) == pytest.approx(traced(*sizes), rel=tolerance)
    interpolated = [latency.of([BlockShape(*size) for size in sizes]) for sizes in near]
    assert np.argsort(interpolated).tolist() == np.argsort([traced(*sizes) for sizes in near]).tolist()


def test_a_unit_has_its_own_share_of_a_linear_cost():
    shapes = dict(enumerate(CONFIG.block_shapes))
    block = LARGE.block + 3 * LARGE.heads + 3 * LARGE.cross_heads + 16 * LARGE.ffn
    units = {Unit("block", 1): block, Unit("heads", 0, 1): LARGE.heads, Unit("ffn", 2, 3): 4 * LARGE.ffn}
    for unit, share in units.items():
        assert LARGE.saved([unit], UNITS, shapes) == share


def test_units_of_unequal_blocks_are_those_that_each_has():
    units = Units(dataclasses.replace(CONFIG, blocks=((2, 1, 8), (1, 3, 4))), 4)
    keep = units.all()
    assert kept_shapes(keep, units.shapes) == units.shapes
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


@pytest.mark.slow
def test_costs_of_a_layout_are_those_of_the_sliced_model():
    costs = counted_costs(LAYOUT, *EVEN_INPUTS)
    units = Units(LAYOUT, 4)
    removed = [Unit("block", 1), Unit("heads", 0, 1), Unit("cross_heads", 2, 0), Unit("ffn", 3, 3)]
    for keep in (units.all(), units.without(units.all(), removed)):
        kept, dit = kept_shapes(keep, units.shapes), Dit(pruned_config(LAYOUT, keep))
        params = jax.eval_shape(lambda *x, dit=dit: init(dit, jax.random.key(0), *x), *EVEN_INPUTS)
        assert costs["parameters"].of(kept) == count_parameters(params)
        counted = count_flops(lambda *x, dit=dit: apply(dit, *x), params, *EVEN_INPUTS)
        assert costs["flops"].of(kept) == sum(counted.values())
        assert costs["latency"].of(kept) == pytest.approx(call_seconds(ops_of_network(dit, *EVEN_INPUTS)))
    shapes = dict(enumerate(units.shapes))
    saved = costs["flops"].saved([Unit("block", 0)], units, shapes)
    assert saved > 1.5 * costs["flops"].saved([Unit("block", 2)], units, shapes)  # of a quarter of the tokens
