"""Peaks and costs of programs whose figures are known by hand."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from export.mil import axes
from export.mil.liveness import op_costs, peak_live_bytes
from tests.export.mil.mil_programs import function_of, mb, types

TOKENS, WIDTH, HIDDEN = 16, 8, 32
X = {"x": np.zeros((TOKENS, WIDTH), np.float32)}
UP, DOWN = np.zeros((HIDDEN, WIDTH), np.float16), np.zeros((WIDTH, HIDDEN), np.float16)


def ffn(tiles: int) -> Any:
    """The hidden axis in tiles, each made, used and dropped before the next."""

    def build(x: Any) -> Any:
        total = None
        for up, down in zip(np.split(UP, tiles), np.split(DOWN, tiles, 1), strict=True):
            part = mb.linear(x=mb.relu(x=mb.linear(x=x, weight=up)), weight=down)
            total = part if total is None else mb.add(x=total, y=part)
        return total

    return function_of(build, X, fp16=True)


@pytest.mark.parametrize("tiles", [1, 2, 4])
def test_peak_of_a_tiled_ffn(tiles: int):
    """Hidden values before and after the activation live together, and with them x, unless the tile is the last, and
    the sum, unless it is the first."""
    x, hidden = 2 * TOKENS * WIDTH, 2 * TOKENS * HIDDEN // tiles
    assert peak_live_bytes(ffn(tiles)) == {1: 0, 2: x, 4: 2 * x}[tiles] + 2 * hidden


def test_inputs_end_at_their_last_use_and_outputs_never():
    """x 512 bytes, y 512: their sum makes 1,536; x^2 then comes where y was, the output x^2 stays beside exp."""

    def build(x: Any, y: Any) -> Any:
        total = mb.add(x=x, y=y)
        squares = mb.square(x=total)
        return squares, mb.exp(x=mb.reduce_sum(x=squares, axes=[-1], keep_dims=True))

    function = function_of(build, X | {"y": X["x"]})
    assert peak_live_bytes(function) == 3 * 4 * TOKENS * WIDTH


def test_costs():
    """A multiply-add is 2 FLOPs; weights count as stored, constants such as axes not at all."""
    up, relu, down = op_costs(ffn(1))
    flops, values = 2 * TOKENS * WIDTH * HIDDEN, 2 * TOKENS
    # coremltools adds a bias of zeros to a linear layer.
    assert (up.flops, up.weight_bytes) == (flops, 2 * (UP.size + HIDDEN))
    assert (up.read_bytes, up.written_bytes) == (values * WIDTH, values * HIDDEN)
    assert (down.flops, down.weight_bytes) == (flops, 2 * (DOWN.size + WIDTH))
    assert (relu.op, relu.flops, relu.weight_bytes, relu.read_bytes) == ("relu", 0, 0, values * HIDDEN)


def test_flops_of_products():
    image, heads = np.zeros((1, 4, 6, 5), np.float32), np.zeros((1, 2, 7, 8), np.float32)
    kernel = np.zeros((6, 2, 3, 3), np.float32)

    def build(image: Any, heads: Any) -> Any:
        return (
            mb.conv(x=image, weight=kernel, groups=2, pad_type="same"),
            mb.conv_transpose(x=image, weight=np.zeros((4, 3, 2, 2), np.float32), strides=[2, 2], pad_type="valid"),
            mb.matmul(x=heads, y=heads, transpose_y=True),
            mb.matmul(x=heads, y=heads, transpose_x=True),
            mb.scaled_dot_product_attention(query=heads, key=heads, value=heads),
            mb.einsum(values=(heads, mb.transpose(x=heads, perm=[0, 3, 2, 1])), equation="bkhc,bchq->bkhq"),
            mb.softmax(x=heads),
        )

    flops = defaultdict(list)
    for cost in op_costs(function_of(build, {"image": image, "heads": heads})):
        flops[cost.op].append(cost.flops)
    product = 2 * 2 * 7 * 7 * 8
    assert flops.pop("conv") == [2 * 6 * 30 * 2 * 9] and flops.pop("conv_transpose") == [2 * 4 * 30 * 3 * 4]
    assert flops.pop("matmul") == [product, 2 * 2 * 8 * 8 * 7] and flops.pop("einsum") == [2 * 2 * 7 * 8 * 2]
    assert flops.pop("scaled_dot_product_attention") == [2 * product]
    assert not any(map(any, flops.values()))


def test_bytes_of_compressed_weights_are_those_stored():
    """4-bit indices of 256 values and a table of 16 halves for each of 2 groups."""
    indices = np.zeros((16, 16), np.uint8).astype(types.np_uint4_dtype)

    def build(x: Any) -> Any:
        weight = mb.constexpr_lut_to_dense(indices=indices, lut=np.zeros((2, 1, 16, 1), np.float16))
        return mb.matmul(x=x, y=weight)

    (cost,) = op_costs(function_of(build, {"x": np.zeros((3, 16), np.float32)}, fp16=True))
    assert cost.weight_bytes == 256 // 2 + 2 * 2 * 16


def test_an_axis_that_the_engine_refuses_is_told():
    wide = function_of(lambda x: mb.add(x=x, y=1.0, name="wide"), {"x": np.zeros((1, 2, 1, 16_385), np.float32)})
    assert axes.warnings(wide) == ["1 axes are longer than the neural engine takes, that of wide is 16,385 of 16,384"]
    assert axes.warnings(ffn(1)) == []
