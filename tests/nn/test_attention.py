"""Attention, RoPE and norms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.attention.layer import Attention, attend
from mobile_video_jax.nn.embeddings import apply_rope, fraction_rope_table, rope_table
from mobile_video_jax.nn.norm import rms_normalize
from tests.nets import normal, params_like


def test_attend_equals_torch_with_a_mask():
    q, k, v = (normal(seed, 2, n, 3, 8) for seed, n in enumerate((5, 7, 7)))
    mask = np.arange(7)[None, :] < np.array([4, 7])[:, None]
    ours = jax.jit(attend)(q, k, v, jnp.asarray(mask)[:, None, :])
    heads_first = [torch.from_numpy(np.asarray(x).copy()).transpose(1, 2) for x in (q, k, v)]
    theirs = torch.nn.functional.scaled_dot_product_attention(*heads_first, torch.from_numpy(mask)[:, None, None])
    np.testing.assert_allclose(ours, theirs.transpose(1, 2), atol=1e-5)


def test_masked_text_has_no_influence():
    layer = Attention(2, 8)
    x, context = jnp.ones((1, 4, 16)), normal(0, 1, 6, 10)
    mask = jnp.arange(6)[None, None, :] < 4
    params = params_like(layer, x, context)
    attention = jax.jit(lambda context, mask=None: layer.apply({"params": params}, x, context, mask=mask))
    changed = context + 100 * (np.arange(6) >= 4)[:, None].astype(np.float32)
    masked = attention(context, mask)
    np.testing.assert_array_equal(masked, attention(changed, mask))
    np.testing.assert_allclose(masked, attention(context[:, :4]), atol=1e-5)


def test_rope_makes_scores_depend_on_relative_position_alone():
    grid, head_dim = (4, 5, 6), 16
    table = jax.jit(lambda: rope_table(grid, head_dim, theta=100.0))()
    everywhere = lambda vector: jnp.asarray(np.broadcast_to(vector, (1, 120, 1, head_dim)))
    rotated = jax.jit(lambda vector: apply_rope(vector, table)[0, :, 0])
    q, k = (np.asarray(rotated(everywhere(vector))) for vector in normal(0, 2, head_dim))
    scores = (q @ k.T).reshape(*grid, *grid)
    np.testing.assert_allclose(scores[0, 1, 2, 1, 3, 2], scores[2, 2, 4, 3, 4, 4], atol=1e-4)
    assert abs(scores[0, 0, 0, 1, 0, 0] - scores[0, 0, 0, 0, 1, 0]) > 1e-3


def test_rope_refuses_heads_that_three_axes_cannot_share():
    with pytest.raises(UserError, match="too small for 3-D RoPE"):
        rope_table((2, 2, 2), 4, 100.0)


def test_rope_across_heads_refuses_odd_heads():
    with pytest.raises(UserError, match="head dimension 5 is odd"):
        fraction_rope_table((2, 2, 2), (0.32, 32.0, 32.0), 2, 5, 1e4)


def test_rms_norm_is_finite_on_zeros_in_half_precision():
    x = jnp.zeros((1, 8), jnp.float16)
    assert np.isfinite(np.asarray(rms_normalize(x))).all()
