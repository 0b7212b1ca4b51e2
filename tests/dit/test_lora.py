"""Low-rank adapters as arithmetic on parameters."""

import dataclasses
import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import AbstractMesh, PartitionSpec

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import LoraConfig
from mobile_video_jax.dit.lora import init_adapter, merged, switched_on
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.stacking import stack_blocks
from mobile_video_jax.nn.module import init
from mobile_video_jax.parallel.rules import partition_spec
from tests.dit.test_model import TINY, inputs
from tests.nets import randomly, run

LORA = LoraConfig(rank=2, alpha=3.0, targets=("self_attention/q", "cross_attention/out", "ffn/up", "patch_in"))
SHAPES = jax.eval_shape(lambda: init(Dit(TINY), jax.random.key(0), *inputs()))
SCANNED = jax.eval_shape(lambda: init(Dit(dataclasses.replace(TINY, scan=True)), jax.random.key(0), *inputs()))


def adapter_of(params: dict, config: LoraConfig = LORA) -> dict:
    return jax.eval_shape(partial(init_adapter, config), jax.random.key(0), params)


def test_the_update_is_that_of_the_formula():
    params, adapter = randomly(SHAPES), randomly(adapter_of(SHAPES), seed=2)
    before, factors, after = map(flatten_dict, (params, adapter, merged(params, adapter, LORA.scale)))
    changed = {path for path in before if np.any(before[path] != after[path])}
    assert changed == {(*path[:-1], "kernel") for path in factors} and len(changed) == 2 * 3 + 1
    for *layer, _ in changed:
        update = 3.0 / 2 * np.asarray(factors[*layer, "a"]) @ np.asarray(factors[*layer, "b"])
        np.testing.assert_allclose(after[*layer, "kernel"] - before[*layer, "kernel"], update, rtol=1e-4, atol=1e-7)


def test_scanned_blocks_are_updated_as_unrolled_ones():
    params, adapter = randomly(SHAPES), randomly(adapter_of(SHAPES), seed=2)
    stacked = stack_blocks(adapter)
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(jnp.shape, nn.unbox(adapter_of(SCANNED)))
    expected = stack_blocks(merged(params, adapter, LORA.scale))
    scanned = merged(stack_blocks(params), stacked, LORA.scale)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), scanned, expected)


def test_switched_on_is_merged_and_takes_the_networks_own_arrays():
    params, adapter = (stack_blocks(randomly(tree, seed=i)) for i, tree in enumerate((SHAPES, adapter_of(SHAPES))))
    network, on = Dit(dataclasses.replace(TINY, scan=True)), switched_on(params, adapter, LORA.scale)
    expected = run(network, merged(params, adapter, LORA.scale), *inputs())
    np.testing.assert_allclose(run(network, on, *inputs()), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - run(network, params, *inputs())).max() > 0.1
    assert all(flatten_dict(on)[path] is leaf for path, leaf in flatten_dict(params).items())


def test_factors_lie_where_their_kernels_axes_lie():
    factors = adapter_of(SCANNED)["blocks"]["block"]["ffn"]["up"]
    mesh = AbstractMesh((1, 2, 2), ("data", "fsdp", "tensor"))
    placed = [partition_spec(x.names, (2, 1 << 10, 1 << 10), mesh) for x in (factors["a"], factors["b"])]
    assert placed == [PartitionSpec(None, "fsdp", None), PartitionSpec(None, None, "tensor")]


def test_a_fresh_adapter_is_normal_times_zero_and_draws_each_layer_by_itself():
    config = LoraConfig(rank=16)
    adapter = flatten_dict(nn.unbox(jax.jit(partial(init_adapter, config))(jax.random.key(0), randomly(SHAPES))))
    assert {re.sub(r"^block_\d/", "", "/".join(path[:-1])) for path in adapter} == set(config.targets)
    normals = [np.asarray(leaf) for path, leaf in adapter.items() if path[-1] == "a"]
    assert not any(np.any(leaf) for path, leaf in adapter.items() if path[-1] == "b")
    assert np.std(normals) == pytest.approx(24**-0.5, rel=0.05)
    assert len({leaf.ravel()[0].item() for leaf in normals}) == len(normals) == 2 * 8


@pytest.mark.parametrize(("targets", "named"), [(("ffn/up", "ffn/gate"), "ffn/gate"), (("q",), "q"), ((), "")])
def test_a_target_that_names_no_layer_is_told_with_what_there_is(targets, named):
    message = f"'{named}' names no linear layer; choose from cross_attention/k, .*, ffn/down, .*, patch_in, .*time_out"
    with pytest.raises(UserError, match=message):
        adapter_of(SHAPES, LoraConfig(rank=2, targets=targets))
    with pytest.raises(UserError, match="cross_attention/k, cross_attention/out"):
        adapter_of(SCANNED, LoraConfig(rank=2, targets=targets))
