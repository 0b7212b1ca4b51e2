"""The ops of an FFN whose hidden channels are computed in tiles (export/phone/tiled_ffn.py)."""

from mobile_video_jax.cost.phone.recorder import Array, Recorder
from mobile_video_jax.cost.phone.tiles import tile_sizes

# Rows, input features and output features of a product.
Sizes = tuple[int, int, int]


def tiled_up(recorder: Recorder, part: str, x: Array, sizes: Sizes, tiles: int) -> Array:
    """The first product, whose result is in tiles of hidden channels."""
    (rows, inputs, outputs), first = sizes, len(recorder.ops)
    pieces = tile_sizes(outputs, tiles)
    for piece in pieces:
        _add_product(recorder, part, x, (rows, inputs, piece), is_first=True)
    size = rows * outputs
    return Array(size, size // len(pieces), pieces=len(pieces), product=(first, part))


def tiled_down(recorder: Recorder, part: str, x: Array, sizes: Sizes) -> Array:
    """The second product: a sum over the tiles of x."""
    (rows, inputs, outputs), first = sizes, len(recorder.ops)
    for i, tile in enumerate(tile_sizes(inputs, x.pieces)):
        _add_product(recorder, part, Array(rows * tile, rows * tile), (rows, tile, outputs), is_first=i == 0)
    return Array(rows * outputs, rows * outputs, product=(first, part))


def _add_product(recorder: Recorder, part: str, x: Array, sizes: Sizes, is_first: bool) -> None:
    rows, inputs, outputs = sizes
    weights = Array(inputs * outputs, inputs * outputs, is_weight=True)
    result = recorder.op(part, [x, weights], rows * outputs, flops=2 * rows * inputs * outputs)
    if not is_first:
        recorder.op(part, [result, result], result.size)
