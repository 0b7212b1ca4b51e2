"""The rotation of queries and keys by position (RoPE), and the scales of their norms, in few ops.

A norm's scale is part of the rotation's tables or of the other norm's scale where that changes nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Cosines and sines of all d channels [h, d, 1, s], of all heads or of each; or in the other layout, [1, s, h, d].
Rope = tuple[Float[Tensor, "_ _ _ _"], Float[Tensor, "_ _ _ _"]]
HalfTables = tuple[Float[Tensor, "*n half"], Float[Tensor, "*n half"]]
Heads = Float[Tensor, "_ _ _ _"]


def full_tables(tables: HalfTables) -> tuple[Float[Tensor, "*n d"], Float[Tensor, "*n d"]]:
    """Tables for `rotate`: both halves of a head's channels turn by the same angles, the first by minus the sine."""
    cos, sin = tables
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def scaled_tables(rope: Rope, scale: Heads, axis: int) -> Rope:
    """Tables that multiply the channels of heads, which lie along the axis, by a scale before they turn them."""
    cos, sin = rope
    return cos * scale, sin * swap_halves(scale, axis)


def rotate(x: Heads, rope: Rope, axis: int = 1) -> Heads:
    """nn.embeddings.apply_rope for heads whose channels lie along an axis: x cos + swapped(x) sin."""
    cos, sin = rope
    return x * cos + swap_halves(x, axis) * sin


def swap_halves(x: Heads, axis: int) -> Heads:
    """The second half of an axis before the first."""
    first, second = x.chunk(2, dim=axis)
    return torch.cat([second, first], dim=axis)


class Turn(nn.Module):
    """What follows the norm of queries or of keys: a scale, and a rotation of heads along an axis; either may lack."""

    scale: Tensor | None
    cos: Tensor | None
    sin: Tensor | None

    def __init__(self, scale: Heads | None, rope: Rope | None, axis: int):
        super().__init__()
        self.axis, self.by_head = axis, rope is not None and len(rope[0]) > 1
        self.register_buffer("scale", scale)
        for name, table in zip(("cos", "sin"), rope or (None, None), strict=True):
            self.register_buffer(name, table)

    def scaled(self, x: Heads) -> Heads:
        """The normalised numbers times the norm's scale."""
        return x if self.scale is None else x * self.scale

    def rotated(self, x: Heads, heads: slice = slice(None)) -> Heads:
        """The heads, turned by their positions; they are those of `heads` where each has tables of its own."""
        if self.cos is None or self.sin is None:
            return x
        rope = (self.cos[heads], self.sin[heads]) if self.by_head else (self.cos, self.sin)
        return rotate(x, rope, self.axis)


def turns(scales: tuple[Heads, Heads], rope: tuple[Rope, Rope] | None, axis: int, *, across: bool) -> tuple[Turn, Turn]:
    """Those of queries and keys whose norms have these scales: `across` heads, or one for all.

    Without a rotation the scale of queries joins that of keys, which are those of a text, and few.
    """
    if rope is None:
        return Turn(None, None, axis), Turn(scales[0] * scales[1], None, axis)
    if across:
        first, second = (Turn(scale, tables, axis) for scale, tables in zip(scales, rope, strict=True))
    else:
        pairs = zip(scales, rope, strict=True)
        first, second = (Turn(None, scaled_tables(tables, scale, axis), axis) for scale, tables in pairs)
    return first, second
