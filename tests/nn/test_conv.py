"""Convolutions and shuffles."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.nn import clip_ops
from mobile_video_jax.nn.conv import Conv
from mobile_video_jax.nn.module import apply
from tests.nets import normal, params_like


def test_sum_of_taps_equals_the_native_convolution_with_gradients():
    x, kernel = normal(0, 2, 7, 6, 5, 4), normal(1, 3, 3, 3, 4, 8)

    @partial(jax.jit, static_argnums=0)
    def value_and_gradient(conv, x, kernel):
        return conv(x, kernel), jax.grad(lambda *args: jnp.sum(jnp.sin(conv(*args))), argnums=(0, 1))(x, kernel)

    native, native_gradient = value_and_gradient(clip_ops._native, x, kernel)
    for conv in (clip_ops._sum_of_taps, clip_ops.clip_conv):
        value, gradient = value_and_gradient(conv, x, kernel)
        np.testing.assert_allclose(value, native, atol=2e-5)
        for ours, theirs in zip(gradient, native_gradient, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_shuffles_are_inverse_and_keep_blocks_together():
    x = jnp.arange(2 * 9 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 9, 4, 6, 3)
    down = clip_ops.shuffle_down(x, 2, 2)
    assert down.shape == (2, 5, 2, 3, 24)
    np.testing.assert_array_equal(clip_ops.shuffle_up(down, 2, 2), x)
    # Latent frame 1 holds frames 1 and 2, place (0, 0) the four pixels of the top-left block.
    assert set(np.asarray(down[0, 1, 0, 0])) == set(np.asarray(x[0, 1:3, :2, :2]).ravel())


def test_a_temporal_convolution_sees_the_past_only():
    layer = Conv(3, temporal=True)
    x = normal(0, 1, 6, 4, 4, 2)
    params = params_like(layer, x)
    jacobian = jax.jit(jax.jacrev(lambda x: apply(layer, params, x).sum(axis=(0, 2, 3, 4))))(x)
    reach = np.abs(np.asarray(jacobian)).sum(axis=(1, 3, 4, 5))
    np.testing.assert_array_equal(reach > 0, [[s in (t - 2, t - 1, t) for s in range(6)] for t in range(6)])
