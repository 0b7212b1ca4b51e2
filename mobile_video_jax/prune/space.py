"""The search space: the smaller models of a model, with their costs and limits on them."""

import dataclasses
from collections.abc import Mapping, Sequence

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import BlockShape
from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.prune.costs import Costs, Number
from mobile_video_jax.prune.units import LEVELS, WIDTHS, Unit, Units, kept_blocks, kept_shapes, with_widths

# Name of a cost -> its largest allowed value.
Limits = Mapping[str, Number]


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """All models that remain after the removal of blocks, and of heads and FFN channels down to multiples of a size.

    `uniform` models have the same widths in all blocks, and as many heads of cross- as of self-attention. A kept block
    keeps at least one multiple of each width. `levels` are pruned in order, others not at all. Raises UserError for
    unknown levels, for a multiple that is no whole number of groups of channels, and for uniform widths of unequal
    blocks.
    """

    units: Units
    costs: Costs
    heads_multiple: int = 1
    ffn_multiple: int = 64
    uniform: bool = True
    levels: tuple[str, ...] = tuple(LEVELS)

    def __post_init__(self) -> None:
        if not self.levels or set(self.levels) - set(LEVELS):
            raise UserError(f"levels {', '.join(self.levels) or 'none'}: use some of {', '.join(LEVELS)}")
        if self.heads_multiple < 1 or self.ffn_multiple < 1 or self.ffn_multiple % self.units.group:
            raise UserError(
                f"--config.heads_multiple={self.heads_multiple} and --config.ffn_multiple={self.ffn_multiple}: "
                f"use 1 or more heads and a multiple of the {self.units.group} channels of a group"
            )
        first, *others = self.units.shapes
        if self.uniform and ({shape.widths for shape in others} - {first.widths} or first.heads != first.cross_heads):
            raise UserError("uniform widths need a model whose blocks are equal: set uniform=False")

    def counts(self, block: int, kind: str) -> list[int]:
        """Numbers of units of a kind that the block may keep, rising."""
        step = self.units.step(kind)
        total = getattr(self.units.shapes[block], kind) // step
        if not any(kind in LEVELS[level] for level in self.levels):
            return [total]
        multiple = self.ffn_multiple // step if kind == "ffn" else self.heads_multiple
        return [*range(multiple, total, multiple), total]

    def smallest(self) -> list[tuple[BlockShape, ...]]:
        """The smallest models: each block alone at its narrowest, or all of them if blocks are not removed."""
        narrow = tuple(
            with_widths(shape, {kind: self.counts(i, kind)[0] * self.units.step(kind) for kind in WIDTHS})
            for i, shape in enumerate(self.units.shapes)
        )
        return [(shape,) for shape in narrow] if "block" in self.levels else [narrow]

    def check(self, limits: Limits) -> None:
        """Raises UserError for limits on unknown costs, below the smallest model's or above the unpruned one's."""
        for name, limit in limits.items():
            if name not in self.costs:
                raise UserError(f"no cost is called '{name}': limit some of {', '.join(self.costs)}")
            lowest = min(self.costs[name].of(shapes) for shapes in self.smallest())
            highest = self.costs[name].of(self.units.shapes)
            if not lowest <= limit <= highest:
                raise UserError(
                    f"a limit of {limit:,.6g} {name} is out of reach: choose {lowest:,.6g} to {highest:,.6g}, "
                    f"{lowest / highest:.3f} to 1 of the model's own"
                )

    def exceeded(self, keep: Masks, limits: Limits) -> list[str]:
        """The costs that are above their limits by more than rounding."""
        shapes = kept_shapes(keep, self.units.shapes)
        return [name for name, limit in limits.items() if self.costs[name].of(shapes) > limit * (1 + 1e-9)]

    def refusal(self, keep: Masks, limits: Limits) -> UserError:
        """The error for limits that a model with nothing left to remove exceeds: how far they must be raised."""
        least = {
            name: self.costs[name].of(kept_shapes(keep, self.units.shapes)) for name in self.exceeded(keep, limits)
        }
        raises = [
            f"{name} to {value:,.6g} ({value / self.costs[name].of(self.units.shapes):.3f} of the model's own)"
            for name, value in least.items()
        ]
        return UserError(f"no model meets all limits at once: raise {' and '.join(raises)}")

    def savings(self, keep: Masks, removals: Sequence[Sequence[Unit]], names: Sequence[str]) -> list[float]:
        """The savings of removals from a masked model: fractions of the unpruned model's costs, summed over costs."""
        blocks = kept_blocks(keep, self.units.shapes)
        costs = [(self.costs[name], self.costs[name].of(self.units.shapes)) for name in names]
        return [float(sum(cost.saved(units, self.units, blocks) / full for cost, full in costs)) for units in removals]
