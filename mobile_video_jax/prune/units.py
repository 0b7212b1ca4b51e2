"""The units that pruning removes: blocks, attention heads and groups of FFN channels."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import BlockShape, DitConfig
from mobile_video_jax.dit.masks import Masks

# The three levels, coarse to fine, and the kinds of units of each: the fields of Masks.
LEVELS = {"block": ("block",), "head": ("heads", "cross_heads"), "channel": ("ffn",)}
LEVEL_OF = {"heads": "head", "cross_heads": "head", "ffn": "channel"}
WIDTHS = tuple(LEVEL_OF)


class Unit(NamedTuple):
    """A block (number 0), or a head or a group of FFN channels by its number within the block."""

    kind: str
    block: int
    number: int = 0


@dataclasses.dataclass(frozen=True)
class Units:
    """The units of a transformer whose FFN channels are removed in groups of `group` neighbours.

    `keep` are Masks of float32 numpy arrays, one for what is kept. Raises UserError for a group that does not divide
    the FFN of every block.
    """

    config: DitConfig
    group: int

    def __post_init__(self) -> None:
        if self.config.skips:
            raise UserError("blocks that skips join (model.skips) cannot be pruned: name another model")
        if self.config.kv_heads:
            raise UserError("heads that share keys and values (model.kv_heads) cannot be pruned: name another model")
        for ffn in {shape.ffn for shape in self.shapes}:
            if self.group < 1 or ffn % self.group:
                raise UserError(f"groups of {self.group} channels do not divide an FFN of {ffn}: use a divisor of it")

    @property
    def shapes(self) -> tuple[BlockShape, ...]:
        return self.config.block_shapes

    def all(self) -> Masks:
        """The masks of the unpruned model."""
        widths = ([getattr(shape, kind) for shape in self.shapes] for kind in WIDTHS)
        rows = (np.arange(max(counts)) < np.array(counts)[:, None] for counts in widths)
        return Masks(np.ones(len(self.shapes), np.float32), *(row.astype(np.float32) for row in rows))

    def kept(self, keep: Masks, kind: str) -> list[Unit]:
        """The units of a kind that masks keep, in order; a removed block has none."""
        blocks = [int(i) for i in np.flatnonzero(keep.block)]
        if kind == "block":
            return [Unit(kind, i) for i in blocks]
        rows = getattr(keep, kind)[:, :: self.step(kind)]
        return [Unit(kind, i, int(number)) for i in blocks for number in np.flatnonzero(rows[i])]

    def without(self, keep: Masks, units: Iterable[Unit]) -> Masks:
        """The masks with these units removed as well."""
        masks = Masks(*(np.array(mask) for mask in keep))
        for unit in units:
            mask, step = getattr(masks, unit.kind), self.step(unit.kind)
            mask[(unit.block, *_positions(unit, step))] = 0
        return masks

    def step(self, kind: str) -> int:
        """Positions of the mask that one unit of a kind is."""
        return self.group if kind == "ffn" else 1


def _positions(unit: Unit, step: int) -> tuple[slice, ...]:
    return () if unit.kind == "block" else (slice(unit.number * step, (unit.number + 1) * step),)


def with_widths(shape: BlockShape, widths: Mapping[str, int]) -> BlockShape:
    """A block of the same kind and resolution with these sizes of WIDTHS."""
    return dataclasses.replace(shape, heads=widths["heads"], cross_heads=widths["cross_heads"], ffn=widths["ffn"])


def kept_blocks(keep: Masks, shapes: Sequence[BlockShape]) -> dict[int, BlockShape]:
    """The kept ones of these blocks by their numbers, with what is kept of their widths."""
    counts = zip(*(np.asarray(getattr(keep, kind)).sum(axis=1).astype(int).tolist() for kind in WIDTHS), strict=True)
    widths = [dict(zip(WIDTHS, sizes, strict=True)) for sizes in counts]
    return {i: with_widths(shape, widths[i]) for i, shape in enumerate(shapes) if keep.block[i]}


def kept_shapes(keep: Masks, shapes: Sequence[BlockShape]) -> tuple[BlockShape, ...]:
    """The shapes of the kept ones of these blocks, in order."""
    return tuple(kept_blocks(keep, shapes).values())


# Parameters of an attention, whatever its kind, with an entry for each head: on the first axis, and on the last one.
PER_HEAD = ("q_features", "k_features", "k_squares", "v_squares")
OF_HEADS = ("gate",)


def head_modules(config: DitConfig) -> tuple[str, ...]:
    """The modules of an attention, whatever its kind, whose output channels are those of its heads."""
    return ("q", "k", "v", "conv", *(("q_norm", "k_norm") if config.qk_norm_across_heads else ()))


def channel_group(config: DitConfig) -> int:
    """The default size of a group: 64 channels, or a sixteenth of the FFN if that is less."""
    return max(1, min(64, min(shape.ffn for shape in config.block_shapes) // 16))
