"""Layers for the phone's neural engine: tensors [b, c, 1, s], linear layers as 1x1 convolutions.

The layout is that of Apple's ml-ane-transformers. Weights are shared with the mirror that a layer is made from.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from export.phone.pieces import piecewise, static_shape
from export.phone.turn import Rope, Turn, turns
from export.pytorch.attention import Attention, shared
from export.pytorch.safe_norms import rms_normalize
from mobile_video_jax.cost.phone.tiles import pieces, spans

Column = Float[Tensor, "1 c 1 1"]


def convolution(weight: Float[Tensor, "o i k k"], bias: Float[Tensor, "o"] | None) -> nn.Conv2d:
    """A convolution that keeps heights and widths."""
    outputs, inputs, size, _ = weight.shape
    # On the meta device it allocates no memory of its own.
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias is not None, device="meta")
    conv.weight = nn.Parameter(weight.detach(), requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return conv


def pointwise(weight: Float[Tensor, "o i"], bias: Float[Tensor, "o"] | None) -> nn.Conv2d:
    """A linear layer over channels."""
    return convolution(weight[:, :, None, None], bias)


def column(vector: Float[Tensor, "c"]) -> Column:
    """A constant for each channel."""
    return vector.detach()[None, :, None, None]


class PhoneHeads(nn.Module):
    """Projections of nn.attention.Attention, and what makes queries and keys of them.

    Norms and rotations take as many heads at once, as a batch, as stay on the chip. A norm across heads comes before
    the split into heads.
    """

    def __init__(self, attention: Attention):
        super().__init__()
        self.heads, self.head_dim = attention.heads, attention.q.weight.shape[0] // attention.heads
        self.kv_heads = attention.kv_heads
        self.norm_across_heads, self.eps = attention.norm_across_heads, attention.norm_eps
        self.q, self.k, self.v = (pointwise(part.weight, part.bias) for part in (attention.q, attention.k, attention.v))
        self.out = pointwise(attention.out.weight, attention.out.bias)

    def scales(self, attention: Attention) -> tuple[Column, Column]:
        """Those of the norms of queries and keys. The rotation is linear, so the logits' factor may come before it."""
        return column(attention.q_norm.weight) * self.head_dim**-0.5, column(attention.k_norm.weight)

    def _turned(self, x: Float[Tensor, "1 hd 1 s"], turn: Turn) -> Float[Tensor, "h d 1 s"]:
        """All heads, normalised and turned."""
        groups = self._groups(x, turn)
        return torch.cat(groups) if len(groups) > 1 else groups[0]

    def _groups(self, x: Float[Tensor, "1 hd 1 s"], turn: Turn) -> list[Float[Tensor, "_ d 1 s"]]:
        """Heads, normalised and turned, in groups."""
        if self.norm_across_heads:
            x = piecewise(lambda x: turn.scaled(rms_normalize(x, epsilon=self.eps)), x)
        results, heads = [], self._heads(x)
        number = static_shape(heads)[0]
        count = min(pieces(math.prod(static_shape(x))), number)
        for own in spans(number, count):
            group = heads[own]
            if not self.norm_across_heads:
                group = turn.scaled(rms_normalize(group, epsilon=self.eps))
            results.append(turn.rotated(group, own))
        return results

    def _shared(self, x: Float[Tensor, "_ d 1 s"]) -> Float[Tensor, "h d 1 s"]:
        """Heads of keys or values, one for each of the queries'."""
        return shared(x, self.kv_heads, self.heads, 0)

    def _heads(self, x: Float[Tensor, "_ _ 1 s"]) -> Float[Tensor, "h d 1 s"]:
        return x.view(static_shape(x)[1] // self.head_dim, self.head_dim, 1, -1)


class PhoneAttention(PhoneHeads):
    """nn.attention.Attention, one head at a time; `rope` are the tables of x and of the context.

    `chunks` of queries keep their logits on the chip.
    """

    def __init__(self, attention: Attention, chunks: int = 1, rope: tuple[Rope, Rope] | None = None):
        super().__init__(attention)
        self.chunks = chunks
        self.q_turn, self.k_turn = turns(self.scales(attention), rope, 1, across=self.norm_across_heads)

    def forward(
        self,
        x: Float[Tensor, "1 c 1 s"],
        context: Float[Tensor, "1 c 1 m"],
        bias: Float[Tensor, "1 m 1 1"] | None = None,
    ) -> Float[Tensor, "1 c 1 s"]:
        """Attention of x to the context; `bias` is added to the logits."""
        queries = [head for group in self._groups(self.q(x), self.q_turn) for head in group.split(1)]
        groups = (group.transpose(1, 3) for group in self._groups(self.k(context), self.k_turn))
        keys = [head for group in groups for head in group.split(1)]
        values = self._heads(self.v(context)).split(1)
        attended: Tensor = self.out(torch.cat(attend_each(queries, keys, values, bias, self.chunks), dim=1))
        return attended


def attend_each(
    queries: Sequence[Float[Tensor, "1 d 1 s"]],
    keys: Sequence[Float[Tensor, "1 m 1 d"]],
    values: Sequence[Float[Tensor, "1 d 1 m"]],
    bias: Float[Tensor, "1 m 1 1"] | None,
    chunks: int,
) -> list[Float[Tensor, "1 d 1 s"]]:
    """Attention head by head; with grouped queries, heads of keys and values are repeated in turn."""
    few = len(keys)
    return [attend(q, keys[i % few], values[i % few], bias, chunks) for i, q in enumerate(queries)]


def attend(
    q: Float[Tensor, "b d 1 s"],
    k: Float[Tensor, "b m 1 d"],
    v: Float[Tensor, "b d 1 m"],
    bias: Float[Tensor, "1 m 1 1"] | None,
    chunks: int = 1,
) -> Float[Tensor, "b d 1 s"]:
    """Attention of one head, or of several as a batch, one chunk of queries after the other.

    `bias` is added to the logits.
    """
    if chunks > 1:
        return torch.cat([attend(part, k, v, bias) for part in q.chunk(chunks, dim=3)], dim=3)
    logits = torch.einsum("bchq,bkhc->bkhq", q, k)
    weights = torch.softmax(logits if bias is None else logits + bias, dim=1)
    return torch.einsum("bkhq,bchk->bchq", weights, v)
