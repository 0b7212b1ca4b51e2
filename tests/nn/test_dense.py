"""The affine map and its gradients, in float32 and in the bf16 form that CPUs take."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.nn.dense import Dense, affine
from mobile_video_jax.nn.gradient_sums import summed_in


@pytest.mark.parametrize("rows", [6, 5])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_affine_and_its_gradients_equal_float32_algebra(dtype, rows):
    rng = np.random.default_rng(0)
    x, w, g = (rng.integers(-3, 4, shape).astype(np.float32) for shape in ((rows, 8), (8, 4), (rows, 4)))
    b = np.arange(4, dtype=np.float32)
    cast = lambda *arrays: [jnp.asarray(array, dtype) for array in arrays]
    y, pull_back = jax.vjp(affine, *cast(x, w), jnp.asarray(b))
    # Small whole numbers: every product and sum is exact in both dtypes.
    for actual, expected in zip((y, *pull_back(*cast(g))), (x @ w + b, g @ w.T, x.T @ g, g.sum(0)), strict=True):
        np.testing.assert_array_equal(np.asarray(actual, np.float32), expected)
    assert y.dtype == dtype


def test_bf16_products_on_a_cpu_are_not_widened():
    """Every product of a step, forward and backward, is one of bf16 factors into float32 over the kernel's axes."""
    x, w, b = jnp.ones((6, 8), jnp.bfloat16), jnp.ones((8, 4), jnp.bfloat16), jnp.ones(4)
    loss = lambda *args: jnp.sum(affine(*args).astype(jnp.float32) ** 2)
    text = jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, w, b).as_text()
    kernels = re.findall(
        r"contracting_dims = \[1\] x .*: \(tensor<\w+xbf16>, tensor<\w+xbf16>\) -> tensor<\w+xf32>", text
    )
    assert len(kernels) == text.count("dot_general") == 3


def test_gradients_of_bf16_layers_are_summed_in_float32_where_that_is_asked_for():
    """The sum of 513 ones is 512 in bf16; output and gradient of the input stay as they were."""
    layer, x = Dense(4, (None, None), dtype=jnp.bfloat16), jnp.ones((513, 2), jnp.bfloat16)
    params = {"kernel": jnp.full((2, 4), 0.5), "bias": jnp.zeros(4)}
    loss = lambda params, x: jnp.sum(layer.apply({"params": params}, x).astype(jnp.float32))
    sums = {}
    for dtype in ("bfloat16", "float32"):
        with summed_in(dtype):
            value, (grads, of_x) = jax.value_and_grad(loss, (0, 1))(params, x)
        sums[dtype] = float(grads["kernel"][0, 0])
        assert value == 513 * 4 and of_x.dtype == jnp.bfloat16 and float(of_x[0, 0]) == 2
        assert {leaf.dtype.name for leaf in jax.tree.leaves(grads)} == {"float32"}
    assert sums == {"bfloat16": 512, "float32": 513} and float(grads["bias"][0]) == 513
