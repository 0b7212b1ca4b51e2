"""The diffusion transformer."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.layers import stack_blocks, unstack_blocks
from mobile_video_jax.dit.model import Dit

TINY = DitConfig(width=24, depth=3, heads=2, head_dim=12, ffn=32, time_features=16)


def inputs(key: int = 0, batch: int = 2, text_tokens: int = 5) -> tuple:
    keys = jax.random.split(jax.random.key(key), 3)
    mask = jnp.arange(text_tokens)[None, :] < jnp.array([3, text_tokens])[:batch, None]
    return (
        jax.random.normal(keys[0], (batch, 3, 2, 4, 6)),
        jax.random.uniform(keys[1], (batch,)),
        jax.random.normal(keys[2], (batch, text_tokens, 10)),
        mask,
    )


def noisy_params(model: Dit) -> dict:
    params = nn.unbox(model.init(jax.random.key(0), *inputs()))["params"]
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return treedef.unflatten(
        [leaf + 0.1 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    )


def test_a_fresh_model_predicts_zero():
    model = Dit(TINY)
    assert not np.any(model.apply(nn.unbox(model.init(jax.random.key(0), *inputs())), *inputs()))


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_scanned_equals_unrolled_with_gradients(remat):
    loop, scan = Dit(TINY), Dit(dataclasses.replace(TINY, scan=True, remat=remat))
    params = noisy_params(loop)
    loss = lambda model: lambda p: jnp.mean(model.apply({"params": p}, *inputs()) ** 2)
    value, grads = jax.value_and_grad(loss(loop))(params)
    scan_value, scan_grads = jax.value_and_grad(loss(scan))(stack_blocks(params))
    np.testing.assert_allclose(value, scan_value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, unstack_blocks(scan_grads))


def test_stacking_blocks_is_reversible_and_matches_the_scanned_tree():
    params = noisy_params(Dit(TINY))
    jax.tree.map(np.testing.assert_array_equal, params, unstack_blocks(stack_blocks(params)))
    scanned = nn.unbox(Dit(dataclasses.replace(TINY, scan=True)).init(jax.random.key(0), *inputs()))["params"]
    assert jax.tree.map(jnp.shape, scanned) == jax.tree.map(jnp.shape, stack_blocks(params))


def test_padding_of_the_text_has_no_influence():
    model = Dit(TINY)
    params = {"params": noisy_params(model)}
    x, t, text, mask = inputs()
    out = model.apply(params, x, t, text, mask)
    garbage = jnp.where(mask[..., None], text, 1e3)
    np.testing.assert_allclose(out, model.apply(params, x, t, garbage, mask), atol=1e-5)
    alone = model.apply(params, x[:1], t[:1], text[:1, :3], mask[:1, :3])
    np.testing.assert_allclose(out[:1], alone, atol=1e-5)


def test_blocks_may_differ_in_heads_and_ffn():
    config = DitConfig(width=24, head_dim=12, time_features=16, blocks=((2, 1, 32), (1, 2, 16)))
    params = noisy_params(Dit(config))
    assert params["block_0"]["self_attention"]["q"]["kernel"].shape == (24, 24)
    assert params["block_1"]["self_attention"]["q"]["kernel"].shape == (24, 12)
    assert params["block_0"]["cross_attention"]["out"]["kernel"].shape == (12, 24)
    assert params["block_1"]["ffn"]["up"]["kernel"].shape == (24, 16)
    assert Dit(config).apply({"params": params}, *inputs()).shape == inputs()[0].shape


def test_scanning_unequal_blocks_is_refused():
    with pytest.raises(UserError, match="cannot be scanned"):
        Dit(DitConfig(blocks=((2, 1, 32), (1, 2, 16)), scan=True)).init(jax.random.key(0), *inputs())


def test_bfloat16_stays_near_float32_with_float32_parameters_and_output():
    model, half = Dit(TINY), Dit(dataclasses.replace(TINY, dtype="bfloat16"))
    params = {"params": noisy_params(model)}
    out, rough = model.apply(params, *inputs()), half.apply(params, *inputs())
    assert rough.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half.init(jax.random.key(0), *inputs())))
    assert np.linalg.norm(out - rough) < 0.05 * np.linalg.norm(out)


@pytest.mark.parametrize("scan", [False, True])
def test_padding_of_the_latents_has_no_influence(scan):
    """A clip padded in time, rows and columns gives the unpadded velocity, whatever the padding holds."""
    model = Dit(dataclasses.replace(TINY, scan=scan))
    params = {"params": noisy_params(model)}
    x, t, text, mask = inputs()
    padded = jnp.pad(x, [(0, 0), (0, 2), (0, 1), (0, 3), (0, 0)], constant_values=1e3)
    places = jnp.broadcast_to(jnp.pad(jnp.ones((3, 2, 4), bool), [(0, 2), (0, 1), (0, 3)]), padded.shape[:4])
    out = model.apply(params, padded, t, text, mask, places)
    np.testing.assert_allclose(out[:, :3, :2, :4], model.apply(params, x, t, text, mask), atol=1e-5)
    assert np.abs(model.apply(params, padded, t, text, mask)[:, :3, :2, :4] - out[:, :3, :2, :4]).max() > 1e-2


def test_frames_may_have_times_of_their_own():
    model = Dit(TINY)
    params = {"params": noisy_params(model)}
    x, t, text, mask = inputs()
    same = jnp.broadcast_to(t[:, None], (2, 3))
    out = model.apply(params, x, t, text, mask)
    np.testing.assert_allclose(model.apply(params, x, same, text, mask), out, atol=1e-5)
    other = model.apply(params, x, same.at[:, 0].set(0.0), text, mask)
    # The first frame is modulated by another time, and the others see it through attention.
    change = np.abs(other - out).mean(axis=(0, 2, 3, 4))
    assert change[0] > 2 * change[1:].max() and change[1:].min() > 1e-5
