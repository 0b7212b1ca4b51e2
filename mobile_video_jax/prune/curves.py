"""Curves of the loss as growing shares of one level are removed."""

import dataclasses
from collections.abc import Mapping

from mobile_video_jax.prune.costs import Number
from mobile_video_jax.prune.sensitivity import Scorer
from mobile_video_jax.prune.space import SearchSpace
from mobile_video_jax.prune.units import LEVELS, Unit, kept_shapes

SHARES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75)


@dataclasses.dataclass(frozen=True)
class Point:
    """A model without the least important units of one level."""

    removed: float  # share of the level's units
    loss: float  # distillation loss
    costs: Mapping[str, Number]


def level_curves(scorer: Scorer, space: SearchSpace, scores: Mapping[Unit, float]) -> dict[str, list[Point]]:
    """For each level of the space the loss after the removal of growing shares of its units, lowest scores first.

    Every block keeps its most important head of each attention and group of channels. Nothing is trained.
    """
    curves = {}
    for level in space.levels:
        units = _removable(space, level, scores)
        total = sum(len(space.units.kept(space.units.all(), kind)) for kind in LEVELS[level])
        counts = sorted({min(round(share * total), len(units)) for share in SHARES})
        keeps = [space.units.without(space.units.all(), units[:count]) for count in counts]
        losses = scorer.losses(keeps)
        curves[level] = [
            Point(
                count / total,
                float(loss),
                {name: cost.of(kept_shapes(keep, space.units.shapes)) for name, cost in space.costs.items()},
            )
            for count, loss, keep in zip(counts, losses, keeps, strict=True)
        ]
    return curves


def _removable(space: SearchSpace, level: str, scores: Mapping[Unit, float]) -> list[Unit]:
    """The units of a level by rising score, without the last of each width or the last block."""
    units = [unit for kind in LEVELS[level] for unit in space.units.kept(space.units.all(), kind)]
    ranked = sorted(units, key=lambda unit: scores[unit])
    if level == "block":
        return ranked[:-1]
    best = {(unit.kind, unit.block): unit for unit in ranked}
    return [unit for unit in ranked if best[unit.kind, unit.block] != unit]
