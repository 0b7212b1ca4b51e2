"""The rules by which the ops of a jaxpr become those of the phone, on networks of a few layers."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from mobile_video_jax.cost.phone.ops import HALF, Op, Value
from mobile_video_jax.cost.phone.roofline import call_seconds, op_seconds, seconds_by, totals
from mobile_video_jax.cost.phone.table import ASSUMED, Device
from mobile_video_jax.cost.phone.tiles import query_chunks
from mobile_video_jax.cost.phone.trace import ops_of_network
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.nn.attention.config import Chunks
from mobile_video_jax.nn.attention.kinds import KINDS
from mobile_video_jax.nn.attention.layer import Attention
from mobile_video_jax.nn.dense import Dense, FeedForward
from mobile_video_jax.nn.embeddings import rope_table
from mobile_video_jax.nn.norm import RMSNorm

ROWS, WIDTH = 6, 8
X = jax.ShapeDtypeStruct((1, ROWS, WIDTH), jnp.float32)


class Layer(nn.Module):
    """One function of x with the parameters that it makes."""

    function: object

    @nn.compact
    def __call__(self, *inputs):
        return self.function(*inputs)


def ops(function, *inputs: jax.ShapeDtypeStruct, **options) -> list[Op]:
    return ops_of_network(Layer(function), *(inputs or (X,)), **options)


def sizes(op: Op) -> list[tuple[int, int]]:
    """Numbers of each value of an op, and of the tensors that hold them."""
    return [(value.bytes // HALF, value.whole // HALF) for value in op.values]


def test_a_linear_layer_is_one_op_with_its_bias():
    for dtype in (jnp.float32, jnp.bfloat16):
        [op] = ops(lambda x, dtype=dtype: Dense(5, (None, None), dtype=dtype, name="dense")(x).astype(jnp.float32))
        assert op.flops == 2 * ROWS * WIDTH * 5 and op.weight_bytes == HALF * (WIDTH * 5 + 5)
        assert sizes(op) == [(ROWS * WIDTH, ROWS * WIDTH), (ROWS * 5, ROWS * 5)] and op.part.endswith("dense")


def test_a_sum_with_another_modules_weights_is_an_op_of_its_own():
    class Table(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x + self.param("table", nn.initializers.zeros, (5,))

    product, table = ops(lambda x: Table(name="table")(Dense(5, (None, None), name="dense")(x)))
    assert (product.weight_bytes, table.weight_bytes, table.flops) == (HALF * (WIDTH * 5 + 5), HALF * 5, 0)


@pytest.mark.parametrize("function", [nn.gelu, nn.silu, nn.softmax, lambda x: 3 * jnp.tanh(x) / 2])
def test_a_function_of_one_value_is_one_op(function):
    [op] = ops(function)
    assert sizes(op) == [(ROWS * WIDTH, ROWS * WIDTH)] * 2 and op.reduces == (function is nn.softmax)


def test_views_move_nothing_and_show_the_tensor_that_holds_them():
    [op] = ops(lambda x: (lambda a, b: a.reshape(-1) * b.T.reshape(-1))(*jnp.split(x[0], 2, axis=1)))
    assert sizes(op) == [(ROWS * WIDTH // 2, ROWS * WIDTH)] * 2 + [(ROWS * WIDTH // 2, ROWS * WIDTH // 2)]


def test_a_norm_is_in_steps_that_fp16_can_hold():
    *steps, scale = ops(lambda x: RMSNorm(name="norm")(x))
    full = [op for op in steps if op.values[-1].bytes == HALF * ROWS * WIDTH]
    assert len(steps) == 16 and len(full) == 2  # x / m and the result; all others have a number a row
    assert sum(value.bytes == HALF * ROWS * WIDTH for op in steps for value in op.values) == 7
    assert scale.weight_bytes == HALF * WIDTH


def test_attention_runs_head_by_head():
    heads, keys = 4, 3
    context = jax.ShapeDtypeStruct((1, keys, WIDTH), jnp.float32)
    traced = ops(lambda x, y: Attention(heads, 2, name="attention")(x, y), X, context)
    logits = [op for op in traced if op.flops == 2 * ROWS * keys * 2 and sizes(op)[-1][0] == ROWS * keys]
    assert len(logits) == heads
    # A head's part of all queries and of all keys; its logits are a tensor of their own.
    whole = ROWS * heads * 2, keys * heads * 2
    assert sizes(logits[0]) == [(ROWS * 2, whole[0]), (keys * 2, whole[1]), (ROWS * keys, ROWS * keys)]
    assert [sizes(op) for op in traced if op.reduces and op.values[0].bytes == HALF * ROWS * keys] == [
        [(ROWS * keys, ROWS * keys)] * 2
    ] * heads
    joined, out = traced[-2:]
    assert sizes(joined) == [(ROWS * 2, ROWS * 2)] * heads + [(ROWS * heads * 2, ROWS * heads * 2)]
    assert out.weight_bytes == HALF * (heads * 2 * WIDTH + WIDTH)


def test_queries_are_cut_where_logits_would_leave_the_chip():
    rows, width = 1344, 64
    x = jax.ShapeDtypeStruct((1, rows, width), jnp.float32)
    traced = ops(lambda x: Attention(2, 32, name="attention")(x), x)
    softmax = [op for op in traced if op.reduces and op.values[0].bytes == HALF * rows * rows // 2]
    assert len(softmax) == 2 * query_chunks(rows, rows) == 4 and HALF * rows * rows > ASSUMED.on_chip
    assert sum(op.flops for op in traced) == 2 * rows * (4 * width * width + 2 * rows * width)


@pytest.mark.parametrize("tiles", [1, 3])
def test_an_ffn_is_computed_in_tiles_of_its_hidden_channels(tiles):
    hidden = 12
    traced = ops(lambda x: FeedForward(hidden, name="ffn")(x), ffn_tiles=tiles)
    assert sum(op.flops for op in traced) == 2 * 2 * ROWS * WIDTH * hidden
    assert sum(op.weight_bytes for op in traced) == HALF * (2 * WIDTH * hidden + hidden + WIDTH)
    products = [op for op in traced if op.flops]
    assert len(products) == 2 * tiles
    # Sums of partial products, and GELU on each tile of the hidden channels.
    assert len(traced) - len(products) == tiles - 1 + tiles
    assert sizes(products[0])[-1] == (ROWS * hidden // tiles,) * 2


def test_scanned_blocks_count_as_unrolled_ones():
    config = DitConfig(width=12, depth=3, heads=2, head_dim=6, ffn=16, time_features=8)
    shapes = ((1, 2, 2, 2, 4), (1,), (1, 3, 5), (1, 3))
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes[:-1]]
    inputs.append(jax.ShapeDtypeStruct(shapes[-1], jnp.bool_))
    unrolled, scanned = (
        totals(ops_of_network(Dit(dataclasses.replace(config, scan=scan, remat="full")), *inputs))
        for scan in (False, True)
    )
    assert unrolled == pytest.approx(scanned)


def test_a_loop_of_unknown_length_is_refused():
    with pytest.raises(ValueError, match="loop of unknown length"):
        ops(lambda x: jax.lax.while_loop(lambda y: y.sum() > 0, lambda y: y - 1, x))


def test_the_roofline_of_an_op():
    """1e9 FLOPs at half of 1e12 a second are 2 ms; 3e6 bytes at a tenth of 1e9 are 30 ms, those on the chip none."""
    device = Device(flops=1e12, bandwidth=1e9)
    assumed = dataclasses.replace(ASSUMED, compute=0.5, memory=0.1, on_chip=1_000_000, call=1.0)
    values = Value(10, 900_000), Value(1_000_000, 1_000_001)
    op = Op("product", 10**9, 2_000_000, values, reduces=False)
    assert op_seconds(op, device, assumed) == pytest.approx(30e-3)
    assert op_seconds(dataclasses.replace(op, weight_bytes=0, values=()), device, assumed) == pytest.approx(2e-3)
    assert call_seconds([op, op], device, dataclasses.replace(assumed, op=0.5)) == pytest.approx(2.06)
    assert seconds_by([op, op], lambda op: op.part, device, assumed) == {"product": pytest.approx(60e-3)}


def test_cells_of_attention_are_taken_one_by_one_and_stacking_them_moves_nothing():
    """Four cells of two heads: a product of logits, a softmax and one of values for each head, then they are joined."""
    grid = (1, 4, 4)
    rope, chunks = rope_table(grid, 6, 100.0), Chunks(cell=(1, 2, 2), radius=0)
    function = lambda x: KINDS["assa"](2, 6, grid=grid, chunks=chunks, name="attention")(x, rope=rope)
    traced = ops(function, jax.ShapeDtypeStruct((1, 16, WIDTH), jnp.float32))
    near = [op for op in traced if "/near" in op.part]
    assert len(near) == 8 * 3 + 4 + 1 and sum(op.flops for op in near) == 8 * 2 * (2 * 4 * 4 * 6)
    assert sizes(near[0]) == [(24, 192), (24, 192), (16, 16)]
