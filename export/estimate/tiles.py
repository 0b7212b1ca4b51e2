"""The number of tiles of an FFN that the estimate is fastest with."""

import torch
from torch import nn

from export.estimate.ops import ops_of_module
from export.phone.tiled_ffn import TiledFfn
from mobile_video_jax.cost.phone.roofline import call_seconds
from mobile_video_jax.cost.phone.tiles import tokens_at_a_time

TILES = (1, 2, 4, 8)


def fastest_tiles(width: int, hidden: int, tokens: int) -> int:
    """One of TILES, for as many tokens as the FFN has at a time: more than 1 where hidden channels stay on the chip."""
    tokens = tokens_at_a_time(width, tokens)
    with torch.device("meta"):
        up, down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        x = torch.empty(1, width, 1, tokens)
        seconds = {
            tiles: call_seconds(ops_of_module(TiledFfn(up, down, tiles).to("meta"), x))
            for tiles in TILES
            if tiles <= min(width, hidden)
        }
    return min(seconds, key=lambda tiles: (round(seconds[tiles], 9), tiles))
