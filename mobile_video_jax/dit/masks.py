"""Pruning masks: units of a transformer that are switched off in the unpruned network."""

from typing import Any, NamedTuple

from mobile_video_jax.dit.config import BlockShape


class Masks(NamedTuple):
    """Float arrays, of jax or numpy, that are 1 for active units and 0 for pruned ones; None: all of a kind are active.

    `block` [l] for the l blocks; `heads` [l, h], `cross_heads` [l, x] and `ffn` [l, f] for the heads of self- and
    cross-attention and the FFN channels of each block, padded where blocks differ. A second axis [l, b, ...] gives
    every clip masks of its own. Masks are floats, so that they have gradients, and arguments of the network, so that
    one compiled program serves all of them.
    """

    block: Any = None
    heads: Any = None
    cross_heads: Any = None
    ffn: Any = None

    def of_block(self, i: int, shape: BlockShape) -> "Masks":
        """The masks of block i, without the first axis and the padding."""

        def slice_of(mask: Any, size: int) -> Any:
            return None if mask is None else mask[i][..., :size]

        return Masks(
            block=None if self.block is None else self.block[i],
            heads=slice_of(self.heads, shape.heads),
            cross_heads=slice_of(self.cross_heads, shape.cross_heads),
            ffn=slice_of(self.ffn, shape.ffn),
        )

    def of_group(self, first: int, stop: int, shape: BlockShape) -> "Masks":
        """The masks of blocks `first` to `stop`, which are equal, without the padding."""

        def slice_of(mask: Any, size: int) -> Any:
            return None if mask is None else mask[first:stop, ..., :size]

        return Masks(
            block=None if self.block is None else self.block[first:stop],
            heads=slice_of(self.heads, shape.heads),
            cross_heads=slice_of(self.cross_heads, shape.cross_heads),
            ffn=slice_of(self.ffn, shape.ffn),
        )


ALL = Masks()
