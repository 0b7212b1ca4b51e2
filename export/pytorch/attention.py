"""Attention in PyTorch, with the names and shapes of mobile_video_jax/nn/attention.

Of all kinds but `full` these are the parameters alone: the phone's forms compute (export/phone/attention).
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from export.tensors import Tokens
from mobile_video_jax.nn.attention.config import ASSA, CHUNKED, FULL, LCHA, SSA
from mobile_video_jax.nn.config import EPS

# Cosines and sines of the angles of each token's pairs of channels, for all heads or one table a head.
Rope = tuple[Float[Tensor, "*h n half"], Float[Tensor, "*h n half"]]


class Attention(nn.Module):
    """nn.attention.Attention: heads with RMS-normalised queries and keys, of x to `context` (x itself when None).

    With `kv_heads` head i has the keys and values of head i modulo `kv_heads`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_dim: int,
        norm_across_heads: bool = False,
        norm_eps: float = EPS,
        kv_heads: int = 0,
    ):
        super().__init__()
        self.heads, self.norm_across_heads, self.norm_eps = heads, norm_across_heads, norm_eps
        self.kv_heads, self.head_dim = kv_heads or heads, head_dim
        self.q = nn.Linear(width, heads * head_dim)
        self.k, self.v = (nn.Linear(width, self.kv_heads * head_dim) for _ in range(2))
        size = heads * head_dim if norm_across_heads else head_dim
        self.q_norm, self.k_norm = nn.RMSNorm(size, norm_eps), nn.RMSNorm(size, norm_eps)
        self.out = nn.Linear(heads * head_dim, width)

    def forward(
        self,
        x: Tokens,
        context: Float[Tensor, "b m d"] | None = None,
        rope: Rope | None = None,
        mask: Bool[Tensor, "b 1 1 m"] | None = None,
    ) -> Tokens:
        context = x if context is None else context
        q, k = self._normalized(self.q(x), self.q_norm), self._normalized(self.k(context), self.k_norm)
        k, v = (shared(x, self.kv_heads, self.heads, 1) for x in (k, self._heads(self.v(context))))
        if rope is not None:
            q, k = apply_rope(q, rope), apply_rope(k, rope)
        heads = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        attended: Tensor = self.out(heads.transpose(1, 2).flatten(2))
        return attended

    def _normalized(self, x: Tensor, norm: nn.RMSNorm) -> Float[Tensor, "b h n head_dim"]:
        heads: Tensor = self._heads(norm(x)) if self.norm_across_heads else norm(self._heads(x))
        return heads

    def _heads(self, x: Tokens) -> Float[Tensor, "b h n head_dim"]:
        return torch.unflatten(x, -1, (-1, self.head_dim)).transpose(1, 2)


def shared(x: Float[Tensor, "..."], few: int, heads: int, axis: int) -> Float[Tensor, "..."]:
    """As `few` heads as lie along an axis, repeated in turn until there are `heads` of them."""
    if few == heads:
        return x
    whole, rest = divmod(heads, few)
    return torch.cat([*[x] * whole, *([x.narrow(axis, 0, rest)] if rest else [])], dim=axis)


class Features(nn.Module):
    """Parameters of nn.attention.linear.FeatureMap."""

    def __init__(self, heads: int, head_dim: int):
        super().__init__()
        self.matrices = nn.Parameter(torch.zeros(heads, head_dim, head_dim))
        self.bias = nn.Parameter(torch.zeros(heads, head_dim))


class Taps(nn.Module):
    """Parameters of nn.conv.DepthwiseConv."""

    def __init__(self, channels: int):
        super().__init__()
        self.taps = nn.Parameter(torch.zeros(3, 3, 3, channels))


class ChunkedAttention(Attention):
    """Parameters of nn.attention.chunked.ChunkedAttention."""

    def __init__(self, width: int, heads: int, head_dim: int, *settings: Any):
        super().__init__(width, heads, head_dim, *settings)
        self.q_features, self.k_features = Features(heads, head_dim), Features(heads, head_dim)


class LinearConvAttention(ChunkedAttention):
    """Parameters of nn.attention.lcha.LinearConvAttention."""

    def __init__(self, width: int, heads: int, head_dim: int, *settings: Any):
        super().__init__(width, heads, head_dim, *settings)
        self.linear_norm = nn.RMSNorm(head_dim, EPS)
        self.conv = Taps(heads * head_dim)
        self.gate = nn.Parameter(torch.zeros(heads))


class SquareConv(nn.Module):
    """Parameters of nn.attention.assa.SquareConv; flax's [heads, in, out] as [out, in, heads]."""

    def __init__(self, heads: int, head_dim: int, stride: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(head_dim, stride**2 * head_dim, heads))


class AdaptiveSparseAttention(Attention):
    """Parameters of nn.attention.assa.AdaptiveSparseAttention."""

    def __init__(self, width: int, heads: int, head_dim: int, *settings: Any, stride: int = 2):
        super().__init__(width, heads, head_dim, *settings)
        self.k_squares, self.v_squares = SquareConv(heads, head_dim, stride), SquareConv(heads, head_dim, stride)
        self.k_squares_norm = nn.RMSNorm(head_dim, self.norm_eps)
        self.gate = nn.Linear(width, heads)


KINDS: dict[str, type[Attention]] = {
    FULL: Attention,
    SSA: Attention,
    CHUNKED: ChunkedAttention,
    LCHA: LinearConvAttention,
    ASSA: AdaptiveSparseAttention,
}


def apply_rope(x: Float[Tensor, "b h n d"], table: Rope) -> Float[Tensor, "b h n d"]:
    """Rotates the pairs (x[j], x[j + d/2]) of each head by its token's angles."""
    cos, sin = table
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
