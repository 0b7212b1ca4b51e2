"""Adaptive sparse attention: full attention as its limit, neighbourhoods of cells, the strided view, the gate."""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mobile_video_jax.nn.attention.assa import SquareConv
from mobile_video_jax.nn.attention.config import Chunks, Grid
from mobile_video_jax.nn.attention.kinds import KINDS
from mobile_video_jax.nn.attention.layer import xla_attend
from mobile_video_jax.nn.attention.neighbours import neighbour_attend, spans
from mobile_video_jax.nn.embeddings import rope_table
from tests.nets import normal, params_like, randomly, run

VIDEO, IMAGE = (3, 4, 8), (1, 8, 8)
CLOSED, OPEN = -1e4, 1e4  # logits whose sigmoid is 0 and 1 exactly
HEADS, SIZE, WIDTH = 2, 6, 12


def layer(kind: str, grid: Grid, chunks: Chunks):
    return KINDS[kind](HEADS, SIZE, grid=grid, chunks=chunks)


def tokens(grid: Grid) -> jax.Array:
    return normal(0, 2, int(np.prod(grid)), WIDTH)


def output(kind: str, grid: Grid, chunks: Chunks, params: dict) -> jax.Array:
    module, rope = layer(kind, grid, chunks), rope_table(grid, SIZE, 100.0)
    names = jax.eval_shape(lambda: module.init(jax.random.key(0), tokens(grid), rope=rope)["params"])
    kept = {name: params[name] for name in names}
    return jax.jit(lambda p, x: module.apply({"params": p}, x, rope=rope))(kept, tokens(grid))


def params_with(gate: float) -> dict:
    module, rope = layer("assa", VIDEO, Chunks()), rope_table(VIDEO, SIZE, 100.0)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), tokens(VIDEO), rope=rope)["params"])
    return randomly(shapes, 0.3) | {"gate": {"kernel": jnp.zeros((WIDTH, HEADS)), "bias": jnp.full(HEADS, gate)}}


@pytest.mark.parametrize("grid", [VIDEO, IMAGE])
def test_with_all_cells_in_one_and_the_gate_closed_it_is_full_attention_to_the_bit(grid):
    params = params_with(CLOSED)
    out = output("assa", grid, Chunks(cell=grid), params)
    np.testing.assert_array_equal(out, output("full", grid, Chunks(), params))


@pytest.mark.parametrize("grid", [VIDEO, IMAGE])
def test_a_radius_over_all_cells_is_full_attention(grid):
    params = params_with(CLOSED)
    out = output("assa", grid, Chunks(cell=(1, 2, 2), radius=3), params)
    np.testing.assert_allclose(out, output("full", grid, Chunks(), params), atol=1e-5)


def test_each_cell_sees_the_cells_around_it_and_those_at_an_edge_fewer():
    """As softmax attention whose mask compares the numbers of two tokens' cells."""
    grid, cell, radius = (3, 4, 8), (1, 2, 2), 1
    q, k, v = (normal(i, 2, *grid, HEADS, SIZE) for i in range(3))
    axes = tuple(spans(length, size, radius) for length, size in zip(grid, cell, strict=True))
    cells = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1).reshape(-1, 3) // cell
    near = np.abs(cells[:, None] - cells[None]).max(axis=-1) <= radius
    assert set(near.sum(axis=1)) == {4 * a * 2 * c for a, c in itertools.product((2, 3), (2, 3))}
    flat = [x.reshape(2, -1, HEADS, SIZE) for x in (q, k, v)]
    expected = xla_attend(*flat, jnp.asarray(near)[None]).reshape(q.shape)
    np.testing.assert_allclose(jax.jit(partial(neighbour_attend, axes=axes))(q, k, v), expected, atol=1e-5)


def test_a_radius_of_zero_sees_the_own_cell_alone():
    """Cells are independent: attention of one equals that of its tokens as a clip."""
    q, k, v = (normal(i, 1, 2, 4, 4, HEADS, SIZE) for i in range(3))
    axes = (spans(2, 1, 0), spans(4, 2, 0), spans(4, 4, 0))
    out = neighbour_attend(q, k, v, axes)
    part = [x[:, 1:, 2:].reshape(1, -1, HEADS, SIZE) for x in (q, k, v)]
    np.testing.assert_allclose(out[:, 1:, 2:].reshape(1, -1, HEADS, SIZE), xla_attend(*part), atol=1e-6)


def test_keys_are_strided_by_a_convolution_of_each_head():
    x = normal(0, 2, 3 * 4 * 8, HEADS, SIZE)
    module = SquareConv(VIDEO, 2, jnp.float32)
    params = params_like(module, x)
    kernel = np.asarray(params["kernel"]).reshape(HEADS, 2, 2, SIZE, SIZE)
    images = x.reshape(-1, 4, 8, HEADS, SIZE)
    per_head = [
        lax.conv_general_dilated(
            images[..., i, :], kernel[i], (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        for i in range(HEADS)
    ]
    expected = jnp.stack(per_head, axis=-2).reshape(2, -1, HEADS, SIZE)
    np.testing.assert_allclose(run(module, params, x), expected, atol=1e-5)
    fresh = module.apply(module.init(jax.random.key(0), x), x)
    mean = images.reshape(-1, 2, 2, 4, 2, HEADS, SIZE).mean(axis=(2, 4)).reshape(2, -1, HEADS, SIZE)
    np.testing.assert_allclose(fresh, mean, atol=1e-6)


def test_with_the_gate_open_a_distant_token_is_seen_and_the_cells_do_not_matter():
    params, chunks = params_with(OPEN), Chunks(cell=(1, 2, 2), radius=0)
    out = output("assa", VIDEO, chunks, params)
    np.testing.assert_array_equal(out, output("assa", VIDEO, dataclasses.replace(chunks, cell=(1, 4, 4)), params))
    module, rope = layer("assa", VIDEO, chunks), rope_table(VIDEO, SIZE, 100.0)
    first = lambda x: jnp.sum(module.apply({"params": params}, x, rope=rope)[:, 0])
    assert (np.abs(jax.jit(jax.grad(first))(tokens(VIDEO))).sum(axis=-1) > 0).all()


def test_a_fresh_gate_is_a_half_for_every_head():
    closed, opened, half = (output("assa", VIDEO, Chunks(), params_with(gate)) for gate in (CLOSED, OPEN, 0.0))
    np.testing.assert_allclose(half, (closed + opened) / 2, atol=1e-5)
