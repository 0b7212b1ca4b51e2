"""The number of tiles of an FFN that the estimate is fastest with."""

import torch
from torch import nn

from export.estimate.ops import ops_of_module
from export.phone.tiled_ffn import TiledFfn
from mobile_video_jax.cost.phone.roofline import call_seconds

TILES = (1, 2, 4, 8)


def fastest_tiles(width: int, hidden: int, tokens: int) -> int:
    """One of TILES: more than 1 where it keeps the hidden channels on the chip and partial sums cost less."""
    with torch.device("meta"):
        up, down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        x = torch.empty(1, width, 1, tokens)
        seconds = {
            tiles: call_seconds(ops_of_module(TiledFfn(up, down, tiles).to("meta"), x))
            for tiles in TILES
            if tiles <= min(width, hidden)
        }
    return min(seconds, key=lambda tiles: (round(seconds[tiles], 9), tiles))
