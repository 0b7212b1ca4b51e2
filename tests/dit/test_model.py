"""The diffusion transformer."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.features import velocity_and_cross_logits
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.stacking import stack_blocks, unstack_blocks
from mobile_video_jax.nn.module import apply
from tests.nets import normal, params_like, run

TINY = DitConfig(width=24, depth=2, heads=2, head_dim=12, ffn=32, time_features=16)
stacked, unstacked = jax.jit(stack_blocks), jax.jit(unstack_blocks)


def inputs(batch: int = 2, text_tokens: int = 5) -> tuple:
    mask = jnp.asarray(np.arange(text_tokens) < np.array([[3], [text_tokens]])[:batch])
    times = jnp.asarray(np.random.default_rng(1).uniform(size=batch), jnp.float32)
    return normal(0, batch, 3, 2, 4, 6), times, normal(2, batch, text_tokens, 10), mask


@pytest.fixture(scope="module")
def params() -> dict:
    return params_like(Dit(TINY), *inputs())


@partial(jax.jit, static_argnums=0)
def value_and_grad(model: Dit, params: dict, x: tuple) -> tuple:
    return jax.value_and_grad(lambda p: jnp.mean(apply(model, p, *x) ** 2))(params)


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_scanned_equals_unrolled_with_gradients(params, remat):
    scan = Dit(dataclasses.replace(TINY, scan=True, remat=remat))
    value, grads = value_and_grad(Dit(TINY), params, inputs())
    scan_value, scan_grads = value_and_grad(scan, stacked(params), inputs())
    np.testing.assert_allclose(value, scan_value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, unstacked(scan_grads))


def test_stacking_blocks_is_reversible_and_matches_the_scanned_tree(params):
    jax.tree.map(np.testing.assert_array_equal, params, unstacked(stacked(params)))
    scanned = params_like(Dit(dataclasses.replace(TINY, scan=True)), *inputs())
    assert jax.tree.map(jnp.shape, scanned) == jax.tree.map(jnp.shape, stacked(params))


def test_padding_of_the_text_has_no_influence(params):
    x, t, text, mask = inputs()
    out = run(Dit(TINY), params, x, t, text, mask)
    garbage = jnp.asarray(np.where(mask[..., None], text, np.float32(1e3)))
    np.testing.assert_allclose(out, run(Dit(TINY), params, x, t, garbage, mask), atol=1e-5)
    alone = run(Dit(TINY), params, x[:1], t[:1], text[:1, :3], mask[:1, :3])
    np.testing.assert_allclose(out[:1], alone, atol=1e-5)


def test_blocks_may_differ_in_heads_and_ffn():
    config = DitConfig(width=24, head_dim=12, time_features=16, blocks=((2, 1, 32), (1, 2, 16)))
    params = params_like(Dit(config), *inputs())
    assert params["block_0"]["self_attention"]["q"]["kernel"].shape == (24, 24)
    assert params["block_1"]["self_attention"]["q"]["kernel"].shape == (24, 12)
    assert params["block_0"]["cross_attention"]["out"]["kernel"].shape == (12, 24)
    assert params["block_1"]["ffn"]["up"]["kernel"].shape == (24, 16)
    assert jax.eval_shape(partial(apply, Dit(config)), params, *inputs()).shape == inputs()[0].shape


def test_scanning_unequal_blocks_is_refused():
    with pytest.raises(UserError, match="cannot be scanned"):
        params_like(Dit(DitConfig(blocks=((2, 1, 32), (1, 2, 16)), scan=True)), *inputs())


def test_bfloat16_stays_near_float32_with_float32_parameters_and_output(params):
    half = Dit(dataclasses.replace(TINY, dtype="bfloat16"))
    out, rough = run(Dit(TINY), params, *inputs()), run(half, params, *inputs())
    assert rough.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params_like(half, *inputs())))
    assert np.linalg.norm(out - rough) < 0.05 * np.linalg.norm(out)


@pytest.mark.parametrize("scan", [False, True])
def test_padding_of_the_latents_has_no_influence(params, scan):
    """A clip padded in time, rows and columns gives the unpadded velocity, whatever the padding holds."""
    model, params = Dit(dataclasses.replace(TINY, scan=scan)), stacked(params) if scan else params
    x, t, text, mask = inputs()
    padded = np.pad(x, [(0, 0), (0, 2), (0, 1), (0, 3), (0, 0)], constant_values=1e3)
    places = np.broadcast_to(np.pad(np.ones((3, 2, 4), bool), [(0, 2), (0, 1), (0, 3)]), padded.shape[:4])
    out = run(model, params, padded, t, text, mask, places)
    np.testing.assert_allclose(out[:, :3, :2, :4], run(model, params, x, t, text, mask), atol=1e-5)
    assert np.abs(run(model, params, padded, t, text, mask)[:, :3, :2, :4] - out[:, :3, :2, :4]).max() > 1e-2


def test_frames_may_have_times_of_their_own(params):
    x, t, text, mask = inputs()
    same = np.repeat(t[:, None], 3, axis=1)
    first_clean = same * np.array([0, 1, 1], np.float32)
    out, again, other = (np.asarray(run(Dit(TINY), params, x, times, text, mask)) for times in (t, same, first_clean))
    np.testing.assert_allclose(again, out, atol=1e-5)
    # The first frame is modulated by another time, and the others see it through attention.
    change = np.abs(other - out).mean(axis=(0, 2, 3, 4))
    assert change[0] > 2 * change[1:].max() and change[1:].min() > 1e-5


@pytest.mark.parametrize("scan", [False, True])
def test_cross_attention_maps_change_no_bit_of_the_velocity(params, scan):
    model, values = Dit(dataclasses.replace(TINY, scan=scan)), stacked(params) if scan else params
    velocity, logits = jax.jit(partial(velocity_and_cross_logits, model))(values, *inputs())
    np.testing.assert_array_equal(velocity, run(model, values, *inputs()))
    assert logits.shape == (2, 3 * 2 * 4, 5)
    expected = jax.jit(partial(velocity_and_cross_logits, Dit(TINY)))(params, *inputs())[1]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
