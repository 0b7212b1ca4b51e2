"""Adaptive sparse attention (nn/attention/assa.py): each token to strided keys of the clip, and to the cells around."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from export.phone.attention.call import Call, Heads, Packed, State, packed
from export.phone.layers import PhoneHeads, attend, attend_each, column, pointwise
from export.phone.pieces import static_shape
from export.phone.turn import Turn, rotate
from export.pytorch.attention import SquareConv
from export.pytorch.safe_norms import rms_normalize
from mobile_video_jax.cost.phone.tiles import pieces, query_chunks, spans
from mobile_video_jax.nn.attention.neighbours import Span
from mobile_video_jax.nn.attention.neighbours import spans as cells_of

Low = Float[Tensor, "h d 1 m"]
Clip = Float[Tensor, "h d _ _ _"]


class PhoneAdaptiveSparse(PhoneHeads):
    """nn.attention.assa.AdaptiveSparseAttention of a whole clip.

    Cells are computed one after the other, in groups of heads whose logits stay on the chip.
    """

    shapes: dict[str, tuple[int, ...]]

    def __init__(self, attention: Any, call: Call):
        super().__init__(attention)
        assert not call.streams  # see export.pytorch.dit.lacking
        self.call, self.shapes, stride = call, {}, call.chunks.stride
        self.q_scale, self.k_scale = (Turn(scale, None, 1) for scale in self.scales(attention))
        self.k_squares, self.v_squares = (_strided(x, stride) for x in (attention.k_squares, attention.v_squares))
        self.register_buffer("squares_scale", column(attention.k_squares_norm.weight))
        self.gate = pointwise(attention.gate.weight, attention.gate.bias)
        for prefix, size in (("", 1), ("low_", stride)):
            for name, table in zip(("cos", "sin"), call.rope(0, call.grid[0], size), strict=True):
                self.register_buffer(prefix + name, table.transpose(1, 2)[:, :, None])

    def forward(self, x: Packed, past: State) -> tuple[Packed, State]:
        q, k = self._turned(self.q(x), self.q_scale), self._turned(self.k(x), self.k_scale)
        k, v = self._shared(k), self._shared(self._heads(self.v(x)))
        low_k, low_v = self._squares(self.k_squares, k), self._squares(self.v_squares, v)
        low_k = rms_normalize(low_k, epsilon=self.eps) * self.get_buffer("squares_scale")
        low_k = rotate(low_k, (self.get_buffer("low_cos"), self.get_buffer("low_sin")))
        q, k = (rotate(y, (self.get_buffer("cos"), self.get_buffer("sin"))) for y in (q, k))
        share = torch.sigmoid(self.gate(x)).view(self.heads, 1, 1, -1)
        near = self._near(q, k, v)
        attended: Tensor = self.out(packed(near + share * (self._everywhere(q, low_k, low_v) - near)))
        return attended, {}

    def _squares(self, conv: nn.Conv2d, x: Heads) -> Low:
        """Heads of strided keys or values."""
        frames, height, width = self.call.grid
        return self._heads(conv(packed(x).view(1, -1, frames * height, width)).flatten(2)[:, :, None])

    def _everywhere(self, q: Heads, k: Low, v: Low) -> Heads:
        """Attention to the strided keys of all frames or, where it is causal, of a chunk's window."""
        chunks, causal = self.call.chunks, self.call.chunks.causal
        ranges = self.call.ranges() if causal else [(0, self.call.grid[0])]
        own, low = self.call.tokens, self.call.tokens // chunks.stride**2
        results = []
        for start, stop in ranges:
            first = max(0, start - chunks.window) if causal else 0
            queries = q[..., own * start : own * stop].split(1)
            keys, values = (x[..., low * first : low * stop].split(1) for x in (k, v))
            keys = [key.transpose(1, 3) for key in keys]
            count = query_chunks(own * (stop - start), low * (stop - first))
            results.append(torch.cat(attend_each(queries, keys, values, None, count)))
        return torch.cat(results, dim=3) if len(results) > 1 else results[0]

    def _near(self, q: Heads, k: Heads, v: Heads) -> Heads:
        """Attention of each cell of tokens to the cells around it."""
        frames, height, width = self.call.grid
        clips = [x.view(self.heads, self.head_dim, frames, height, width) for x in (q, k, v)]
        times = self._times()
        rows, columns = self._axis(height, 1), self._axis(width, 2)
        slabs = [torch.cat([torch.cat([_cell(clips, (t, y, x)) for x in columns], 4) for y in rows], 3) for t in times]
        return torch.cat(slabs, 2).flatten(2)[:, :, None]

    def _times(self) -> list[Span]:
        """Cells along time: where it is causal, chunks."""
        chunks = self.call.chunks
        if not chunks.causal:
            return list(cells_of(self.call.grid[0], chunks.cell[0], chunks.radius))
        past = chunks.radius * chunks.frames
        return [Span(slice(a, b), slice(max(0, a - past), b)) for a, b in self.call.ranges()]

    def _axis(self, length: int, axis: int) -> list[Span]:
        return list(cells_of(length, self.call.chunks.cell[axis], self.call.chunks.radius))


def _cell(clips: list[Clip], cell: tuple[Span, Span, Span]) -> Clip:
    """One cell's attention, in groups of heads."""
    q, k, v = clips
    queries = q[:, :, *(span.queries for span in cell)]
    keys, values = (x[:, :, *(span.keys for span in cell)].flatten(2)[:, :, None] for x in (k, v))
    heads, _, *sizes = static_shape(queries)
    numbers = static_shape(keys)[3] * heads * sizes[0] * sizes[1] * sizes[2]
    flat, keys = queries.flatten(2)[:, :, None], keys.transpose(1, 3)
    groups = [attend(flat[own], keys[own], values[own], None) for own in spans(heads, min(pieces(numbers), heads))]
    out = torch.cat(groups) if len(groups) > 1 else groups[0]
    return out.view(heads, -1, *sizes)


def _strided(squares: SquareConv, stride: int) -> nn.Conv2d:
    """A convolution of each head alone over squares of tokens."""
    size, inputs, heads = squares.weight.shape
    conv = nn.Conv2d(heads * size, heads * size, stride, stride=stride, groups=heads, bias=False, device="meta")
    weight = squares.weight.detach().permute(2, 0, 1).reshape(heads, size, stride, stride, inputs // stride**2)
    weight = weight.permute(0, 1, 4, 2, 3).reshape(heads * size, -1, stride, stride)
    conv.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    return conv
