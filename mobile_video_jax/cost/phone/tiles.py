"""Sizes of tiles: what keeps on the chip values that the next op reads, such as logits and an FFN's hidden channels."""

import itertools
import math

import numpy as np

from mobile_video_jax.cost.phone.ops import HALF
from mobile_video_jax.cost.phone.table import ASSUMED

LEAST_QUERIES = 128  # of a chunk: smaller products would leave most of the engine idle


def query_chunks(queries: int, keys: int) -> int:
    """The fewest chunks of queries, of LEAST_QUERIES or more, whose logits for all keys of a head stay on the chip.

    Apple's SPLIT_EINSUM_V2 (ml-stable-diffusion) cuts queries into chunks of 512.
    """
    return max(1, min(math.ceil(HALF * queries * keys / ASSUMED.on_chip), queries // LEAST_QUERIES))


def pieces(numbers: int) -> int:
    """The fewest equal pieces of a tensor of so many numbers that stay on the chip."""
    return max(1, math.ceil(HALF * numbers / ASSUMED.on_chip))


def tokens_at_a_time(width: int, tokens: int) -> int:
    """The most tokens of a piece of a transformer's residual stream."""
    return math.ceil(tokens / pieces(width * tokens))


def spans(size: int, count: int) -> list[slice]:
    """So many slices of an axis, as even as they can be."""
    ends = np.cumsum([0, *tile_sizes(size, count)]).tolist()
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]


def tile_sizes(size: int, tiles: int) -> list[int]:
    """The sizes of so many tiles, as even as they can be; no more tiles than there are numbers."""
    return [len(tile) for tile in np.array_split(np.arange(size), min(tiles, size))]
