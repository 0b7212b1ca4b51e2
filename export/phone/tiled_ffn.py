"""The feed-forward network in tiles: the whole hidden activation is never in use at a time."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from export.phone.layout import PHONE, LaidOut, Layout
from export.pytorch.dit import gelu
from mobile_video_jax.core.errors import UserError


class TiledFfn(nn.Module):
    """nn.dense.FeedForward over channels, in `tiles` of the hidden channels J, one of which exists at a time.

    y = b2 + sum_i gelu(b1[J_i] + W1[J_i] x) W2[:, J_i]

    It takes 2 k products, and the first tile has the bias. With `cut_inputs` both products are split along their input
    features (arXiv 2507.13343, figure 5): W1[J_i] x is sum_m W1[J_i, I_m] x[I_m], in k^2 + k products.

    Raises UserError for more tiles than features.
    """

    def __init__(self, up: nn.Linear, down: nn.Linear, tiles: int, layout: Layout = PHONE, *, cut_inputs: bool = False):
        super().__init__()
        if not 1 <= tiles <= min(up.weight.shape):
            raise UserError(f"an FFN of {up.weight.shape[1]} to {up.weight.shape[0]} cannot have {tiles} tiles")
        inputs, hidden = (np.array_split(np.arange(size), tiles) for size in reversed(up.weight.shape))
        if not cut_inputs:
            inputs = [np.arange(up.weight.shape[1])]
        self.up = nn.ModuleList(
            PartialSums(_tile(layout, up, _span(rows), _span(part), bias=m == 0) for m, part in enumerate(inputs))
            for rows in hidden
        )
        self.down = nn.ModuleList(
            _tile(layout, down, slice(None), _span(part), bias=i == 0) for i, part in enumerate(hidden)
        )
        self.channels, self.sizes = layout.channels, [len(part) for part in inputs]
        self.gelu = gelu()

    def forward(self, x: LaidOut) -> LaidOut:
        parts = torch.split(x, self.sizes, dim=self.channels) if len(self.sizes) > 1 else (x,)
        return _sum(down(self.gelu(up(parts))) for up, down in zip(self.up, self.down, strict=True))


class PartialSums(nn.ModuleList):
    """A layer split along its input: the sum of each tile's product with its part."""

    def forward(self, parts: Sequence[LaidOut]) -> LaidOut:
        return _sum(tile(part) for tile, part in zip(self, parts, strict=True))


def _sum(parts: Iterable[Tensor]) -> Tensor:
    """The sum of the parts, each added before the next is computed."""
    parts = iter(parts)
    total = next(parts)
    for part in parts:
        total = total + part
    return total


def _tile(layout: Layout, linear: nn.Linear, rows: slice, columns: slice, *, bias: bool) -> nn.Module:
    return layout.layer(linear.weight[rows, columns], linear.bias[rows] if bias else None)


def _span(indices: np.ndarray) -> slice:
    return slice(int(indices[0]), int(indices[-1]) + 1)
