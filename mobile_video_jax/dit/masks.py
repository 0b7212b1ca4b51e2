"""Masks over a transformer's units: what pruning may remove, switched off in the unpruned network."""

from typing import Any, NamedTuple

from mobile_video_jax.dit.config import BlockShape


class Masks(NamedTuple):
    """Arrays, of jax or numpy, that are 1 where a unit takes part and 0 where it does not; None where all of a kind do.

    `block` [l] is of the l blocks; heads [l, h], cross_heads [l, x] and ffn [l, f] of each one's heads of self- and
    cross-attention and FFN channels, padded where blocks differ. A second axis [l, b, …] gives each clip its own.
    Masks are floats, so that they have gradients, and an argument of the network: one program serves all of them.
    """

    block: Any = None
    heads: Any = None
    cross_heads: Any = None
    ffn: Any = None

    def of_block(self, i: int, shape: BlockShape) -> "Masks":
        """The masks of block i, without the first axis and the padding."""
        sizes = (None, shape.heads, shape.cross_heads, shape.ffn)
        own = (None if mask is None else mask[i] for mask in self)
        return Masks(*(m if m is None or size is None else m[..., :size] for m, size in zip(own, sizes, strict=True)))


ALL = Masks()
