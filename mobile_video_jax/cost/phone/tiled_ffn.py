"""The ops of an FFN whose products are cut into tiles along their input features (export/phone/tiled_ffn.py)."""

import numpy as np

from mobile_video_jax.cost.phone.recorder import Array, Recorder

# Rows, input features and output features of a product.
Sizes = tuple[int, int, int]


def tiled_up(recorder: Recorder, part: str, x: Array, sizes: Sizes, tiles: int) -> Array:
    """The first product: each tile of its result is a sum over tiles of x."""
    (rows, inputs, outputs), first = sizes, len(recorder.ops)
    pieces = _tile_sizes(outputs, tiles)
    for piece in pieces:
        for i, tile in enumerate(_tile_sizes(inputs, tiles)):
            _add_product(recorder, part, Array(rows * tile, x.whole), (rows, tile, piece), is_first=i == 0)
    size = rows * outputs
    return Array(size, size // len(pieces), pieces=len(pieces), product=(first, part))


def tiled_down(recorder: Recorder, part: str, x: Array, sizes: Sizes) -> Array:
    """The second product: a sum over the pieces of x."""
    (rows, inputs, outputs), first = sizes, len(recorder.ops)
    for i, tile in enumerate(_tile_sizes(inputs, x.pieces)):
        _add_product(recorder, part, Array(rows * tile, rows * tile), (rows, tile, outputs), is_first=i == 0)
    return Array(rows * outputs, rows * outputs, product=(first, part))


def _add_product(recorder: Recorder, part: str, x: Array, sizes: Sizes, is_first: bool) -> None:
    rows, inputs, outputs = sizes
    weights = Array(inputs * outputs, inputs * outputs, is_weight=True)
    result = recorder.op(part, [x, weights], rows * outputs, flops=2 * rows * inputs * outputs)
    if not is_first:
        recorder.op(part, [result, result], result.size)


def _tile_sizes(size: int, tiles: int) -> list[int]:
    return [len(tile) for tile in np.array_split(np.arange(size), min(tiles, size))]
