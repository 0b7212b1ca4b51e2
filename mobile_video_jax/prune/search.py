"""Greedy search for what to keep within a budget, coarse to fine."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.prune.space import Limits, SearchSpace
from mobile_video_jax.prune.units import LEVELS, Unit

# Scores of units of a masked model: how much the loss rises, or another measure, if one of them is removed.
ScoreUnits = Callable[[Masks, Sequence[Unit]], Float64[np.ndarray, "u"]]

# Removals after which the units of a level are scored again; 0: scored once.
RESCORE = {"block": 1, "head": 0, "channel": 0}


def greedy(
    space: SearchSpace, level_limits: Mapping[str, Limits], score: ScoreUnits, rescore: Mapping[str, int] = RESCORE
) -> Masks:
    """The masks after each level in turn has removed units of the least score per saving, until its limits hold.

    A removal is a block, or the heads or channels of lowest scores of one block (of all blocks, if widths are uniform)
    down to the next multiple. Its score is the sum of its units', its saving a fraction of the unpruned model's costs,
    summed over costs that are above their limits. If the last level ends above its limits, the budget, all levels
    continue, the finest first. `level_limits` come from prune/budget.py. Raises UserError for a budget out of reach.
    """
    *_, budget = level_limits.values()
    space.check(budget)
    keep = space.units.all()
    for level, limits in [*level_limits.items(), *((level, budget) for level in reversed(list(level_limits)))]:
        keep = _reduced(space, level, limits, keep, score, rescore[level])
    if space.exceeded(keep, budget):
        raise space.refusal(keep, budget)
    return keep


def _reduced(space: SearchSpace, level: str, limits: Limits, keep: Masks, score: ScoreUnits, rescore: int) -> Masks:
    """The masks after removals at one level, until the limits hold or nothing can be removed."""
    scores: dict[Unit, float] = {}
    count = 0
    while exceeded := space.exceeded(keep, limits):
        if not scores or (rescore and count % rescore == 0):
            units = [unit for kind in LEVELS[level] for unit in space.units.kept(keep, kind)]
            scores = dict(zip(units, score(keep, units).tolist(), strict=True))
        removals = removals_of(space, level, keep, scores)
        savings = zip(space.savings(keep, removals, exceeded), removals, strict=True)
        ratios = [(sum(scores[unit] for unit in units) / saving, units) for saving, units in savings if saving > 0]
        if not ratios:
            break
        keep = space.units.without(keep, min(ratios, key=lambda pair: pair[0])[1])
        count += 1
    return keep


def removals_of(space: SearchSpace, level: str, keep: Masks, scores: Mapping[Unit, float]) -> list[list[Unit]]:
    """The removals that a level allows next."""
    if level == "block":
        blocks = space.units.kept(keep, "block")
        return [[unit] for unit in blocks] if len(blocks) > 1 else []
    units = [unit for kind in LEVELS[level] for unit in space.units.kept(keep, kind)]
    widths = [list(width) for _, width in itertools.groupby(units, key=lambda unit: (unit.kind, unit.block))]
    removals = [removal for width in widths if (removal := _one_step(space, width, scores))]
    return [list(itertools.chain(*removals))] if space.uniform and removals else removals


def _one_step(space: SearchSpace, units: list[Unit], scores: Mapping[Unit, float]) -> list[Unit]:
    """The units of lowest score of one width, down to the next allowed count; none at the smallest."""
    smaller = [count for count in space.counts(units[0].block, units[0].kind) if count < len(units)]
    excess = len(units) - smaller[-1] if smaller else 0
    return sorted(units, key=lambda unit: scores[unit])[:excess]
