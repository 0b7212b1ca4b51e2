"""Layouts: transformers whose blocks differ in the kind of attention and in resolution."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.features import (
    backbone_params,
    block_params,
    first_blocks,
    velocity_and_errors,
    velocity_and_features,
)
from mobile_video_jax.dit.groups import groups
from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.stacking import stack_blocks, unstack_blocks
from mobile_video_jax.models.config import DenoiserConfig
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.nn.module import apply
from tests.nets import normal, params_like, run

LAYOUT = (("lcha", 1), ("ssa", 2), ("ssa", 2))
SIZES = DitConfig(width=12, depth=3, heads=2, head_dim=6, ffn=16, time_features=8)
HYBRID = dataclasses.replace(SIZES, layout=LAYOUT)


def inputs(frames: int = 3) -> tuple:
    return normal(0, 2, frames, 4, 4, 6), jnp.array([0.3, 0.8]), normal(2, 2, 3, 10), jnp.ones((2, 3), bool)


@pytest.fixture(scope="module")
def params() -> dict:
    return params_like(Dit(HYBRID), *inputs())


@partial(jax.jit, static_argnums=0)
def value_and_grad(model: Dit, params: dict, x: tuple) -> tuple:
    return jax.value_and_grad(lambda p: jnp.mean(apply(model, p, *x) ** 2))(params)


def test_a_layout_of_full_blocks_is_the_plain_network_to_the_bit():
    plain = dataclasses.replace(SIZES, depth=2)
    params = params_like(Dit(plain), *inputs())
    full = dataclasses.replace(plain, layout=(("full", 1),) * 2)
    np.testing.assert_array_equal(run(Dit(full), params, *inputs()), run(Dit(plain), params, *inputs()))


def test_scanned_groups_equal_separate_blocks_with_gradients(params):
    scan = dataclasses.replace(HYBRID, scan=True, remat="full")
    stacked = stack_blocks(params, groups(scan))
    assert [name for name in stacked if name.startswith("blocks")] == ["blocks_0", "blocks_1"]
    value, gradient = value_and_grad(Dit(HYBRID), params, inputs())
    scanned_value, scanned_gradient = value_and_grad(Dit(scan), stacked, inputs())
    np.testing.assert_allclose(value, scanned_value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradient, unstack_blocks(scanned_gradient))
    np.testing.assert_array_equal(block_params(stacked, 2)["modulation"], params["block_2"]["modulation"])


def test_low_resolution_blocks_that_change_nothing_leave_the_tokens_as_they_are(params):
    """A stage whose blocks are masked is the network without it."""
    masked = run(Dit(HYBRID), params, *inputs(), None, Masks(block=np.float32([1, 0, 0])))
    without = dataclasses.replace(SIZES, depth=1, layout=LAYOUT[:1])
    expected = run(Dit(without), params, *inputs())
    np.testing.assert_allclose(masked, expected, atol=1e-5)


def test_features_of_all_blocks_are_those_of_the_whole_resolution(params):
    """The last features decide the velocity, and the errors of observed blocks are those of the features."""
    velocity, features = jax.jit(partial(velocity_and_features, Dit(HYBRID)))(params, *inputs())
    assert features.shape == (3, 2, 48, 12)
    mean_of = lambda x: jnp.mean(jnp.abs(x), axis=(1, 2))
    again, errors = jax.jit(lambda p, *x: velocity_and_errors(Dit(HYBRID), p, mean_of, *x))(params, *inputs())
    np.testing.assert_allclose(errors, np.abs(features).mean(axis=(2, 3)), rtol=1e-5)
    np.testing.assert_allclose(again, velocity, atol=1e-6)


def test_the_backbone_of_the_first_blocks_is_a_layout_too(params):
    scan = dataclasses.replace(HYBRID, scan=True)
    _, features = jax.jit(partial(velocity_and_features, Dit(HYBRID)))(params, *inputs())
    backbone = first_blocks(scan, 2)
    stacked = backbone_params(backbone, stack_blocks(params, groups(scan)))
    assert backbone.config.layout == LAYOUT[:2]
    assert jax.tree.leaves(stacked["blocks_1"])[0].shape[0] == 1
    assert run(backbone, stacked, *inputs()).x.shape == features[1].shape


def test_a_stream_of_a_causal_network_equals_the_whole_clip(params):
    config = dataclasses.replace(HYBRID, causal=True, attention_window=1, scan=True)
    dit, stacked = Dit(config), stack_blocks(params, groups(config))
    x, t, text, mask = inputs(frames=5)
    call = jax.jit(lambda state, x: dit.apply({"params": stacked, **state}, x, t, text, mask, mutable="stream"))
    outputs, state = [], {}
    for chunk in (x[:, :1], x[:, 1:3], x[:, 3:]):
        out, state = call(state, chunk)
        outputs.append(out)
    np.testing.assert_allclose(jnp.concatenate(outputs, axis=1), run(dit, stacked, x, t, text, mask), atol=1e-5)


STAGES = DitConfig(
    width=12,
    depth=6,
    heads=2,
    head_dim=6,
    ffn=16,
    time_features=8,
    layout=(("full", 1), *(("full", 2),) * 4, ("full", 1)),
    skips=((1, 4), (2, 3), (0, 5)),
)


def test_fresh_skips_change_nothing_and_trained_ones_bring_an_earlier_block_back():
    """Down, Middle and Up with skips inside the middle and across it."""
    params = params_like(Dit(STAGES), *inputs())
    before = {name: {key: x for key, x in value.items() if key != "skip"} for name, value in params.items()}
    plain = run(Dit(dataclasses.replace(STAGES, skips=())), before, *inputs())
    zero = {i: jax.tree.map(jnp.zeros_like, params[f"block_{i}"]["skip"]) for i in (3, 4, 5)}
    fresh = params | {f"block_{i}": params[f"block_{i}"] | {"skip": skip} for i, skip in zero.items()}
    np.testing.assert_array_equal(run(Dit(STAGES), fresh, *inputs()), plain)
    assert np.abs(run(Dit(STAGES), params, *inputs()) - plain).max() > 1e-3
    boxed = jax.eval_shape(lambda *x: Dit(STAGES).init(jax.random.key(0), *x)["params"], *inputs())
    assert {name for name in boxed if "skip" in boxed[name]} == {"block_3", "block_4", "block_5"}


@pytest.mark.slow
def test_scanned_skips_equal_separate_ones_with_gradients():
    scan = dataclasses.replace(STAGES, scan=True, remat="full")
    params = params_like(Dit(STAGES), *inputs())
    stacked = stack_blocks(params, groups(scan))
    assert [(group.first, group.stop) for group in groups(scan)] == [(0, 1), (1, 3), (3, 5), (5, 6)]
    value, gradient = value_and_grad(Dit(STAGES), params, inputs())
    scanned_value, scanned_gradient = value_and_grad(Dit(scan), stacked, inputs())
    np.testing.assert_allclose(value, scanned_value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradient, unstack_blocks(scanned_gradient))
    backbone = first_blocks(scan, 4)
    assert backbone.config.skips == ((2, 3),)
    kept = backbone_params(backbone, stacked)
    expected = run(first_blocks(STAGES, 4), params, *inputs()).x
    np.testing.assert_allclose(run(backbone, kept, *inputs()).x, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": LAYOUT[:2]}, "lists 2 blocks and the model has 3"),
        ({"layout": (("local", 1),) * 3}, "kind 'local' is unknown"),
        ({"layout": (("lcha", 3),) * 3}, "resolution 3 does not divide the 4x4 tokens"),
        ({"layout": (("ssa", 4),) * 3}, "stride of 2 does not divide the 1x1 tokens"),
        ({"causal": True, "chunk_frames": 3}, "chunks of 3 latent frames do not divide the 2 after the first"),
        ({"layout": (("assa", 1),) * 3, "attention_cell": (1, 3, 4)}, "cells of 1x3x4 do not divide the 3x4x4 frames"),
        ({"skips": ((0, 1),)}, r"\(0,1\) joins no earlier block to a later one of its resolution"),
        ({"skips": ((2, 1),)}, r"\(2,1\) joins no earlier block"),
        ({"layout": (("lcha", 1),) * 3, "skips": ((0, 1), (1, 2))}, "name each block once"),
        ({"causal": True, "rope_scale": (0.3, 8.0, 8.0)}, "cannot be causal"),
    ],
)
def test_layouts_that_do_not_fit_are_refused_before_anything_is_compiled(changes, message):
    with pytest.raises(UserError, match=message):
        Denoiser(DenoiserConfig(clip="9x32x32", model=dataclasses.replace(HYBRID, **changes), compression="t4_s8_c16"))


def test_costs_are_counted_by_kind_and_resolution():
    """Linear attention is linear in tokens, full attention is not, and half the resolution has a quarter of tokens."""

    def products(kind: str, resolution: int, clip: str) -> int:
        model = dataclasses.replace(SIZES, depth=1, layout=((kind, resolution),))
        return Denoiser(DenoiserConfig(clip=clip, model=model, compression="t4_s8_c16")).inspect()["flops"][
            "self_attention_products"
        ]

    assert products("lcha", 1, "17x32x32") * 3 == products("lcha", 1, "9x32x32") * 5
    assert products("full", 1, "17x32x32") * 9 == products("full", 1, "9x32x32") * 25
    assert products("full", 2, "9x32x32") * 16 == products("full", 1, "9x32x32")
    assert products("ssa", 1, "9x32x32") * 16 == products("full", 1, "9x32x32")
