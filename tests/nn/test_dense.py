"""The affine map and its gradients, in float32 and in the bf16 form that CPUs take."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.nn.dense import affine


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
