"""The ops of an FFN whose hidden channels are computed in tiles (export/phone/tiled_ffn.py)."""

from mobile_video_jax.cost.phone.recorder import Array, Recorder
from mobile_video_jax.cost.phone.tiles import tile_sizes

# Rows, input features and output features of a product.
Sizes = tuple[int, int, int]


def tiled_up(recorder: Recorder, part: str, x: Array, sizes: Sizes, tiles: int) -> Array:
    """The first product, whose result is in tiles of hidden channels of each piece of x, which are of rows."""
    (rows, inputs, outputs), first = sizes, len(recorder.ops)
    hidden = tile_sizes(outputs, tiles)
    for own in tile_sizes(rows, x.pieces):
        for tile in hidden:
            _add_product(recorder, part, x.share(x.pieces), (own, inputs, tile), is_first=True)
    size, count = rows * outputs, x.pieces * len(hidden)
    return Array(size, size // count, pieces=count, product=(first, part))


def tiled_down(recorder: Recorder, part: str, x: Array, sizes: Sizes, tiles: int) -> Array:
    """The second product: a sum over the tiles of each piece's hidden channels."""
    (rows, inputs, outputs), first = sizes, len(recorder.ops)
    hidden = tile_sizes(inputs, tiles)
    count = x.pieces // len(hidden)
    for own in tile_sizes(rows, count):
        for i, tile in enumerate(hidden):
            _add_product(recorder, part, Array(own * tile, own * tile), (own, tile, outputs), is_first=i == 0)
    size = rows * outputs
    return Array(size, size // count, pieces=count, product=(first, part))


def _add_product(recorder: Recorder, part: str, x: Array, sizes: Sizes, is_first: bool) -> None:
    rows, inputs, outputs = sizes
    weights = Array(inputs * outputs, inputs * outputs, is_weight=True)
    result = recorder.op(part, [x, weights], rows * outputs, flops=2 * rows * inputs * outputs)
    if not is_first:
        recorder.op(part, [result, result], result.size)
