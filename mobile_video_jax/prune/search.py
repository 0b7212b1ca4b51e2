"""Greedy search for what to keep within a budget, coarse to fine."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.prune.space import Limits, SearchSpace
from mobile_video_jax.prune.units import LEVELS, Unit

# The rise of the loss when each of the units is removed from what is kept.
Score = Callable[[Masks, Sequence[Unit]], Float64[np.ndarray, "u"]]

# Removals between two scorings, by level; 0 scores once, as the level begins.
RESCORE = {"block": 1, "head": 0, "channel": 0}


def greedy(
    space: SearchSpace, stages: Mapping[str, Limits], score: Score, rescore: Mapping[str, int] = RESCORE
) -> Masks:
    """What to keep: each level in turn removes what costs the least loss for what it saves, until its limits hold.

    A removal is a block, or the least important heads or channels of one block (of all, where widths are uniform) down
    to the next multiple; its loss is the sum of its units' rises, taken to add up. Saved are fractions of the model's
    costs, summed over those that are still above their limits. Where the last level ends above the budget, its own
    limits, the finer levels go on before the coarser ones. `stages` come from stage_limits (prune/budget.py). Raises
    UserError for a budget out of reach.
    """
    *_, budget = stages.values()
    space.check(budget)
    keep = space.units.all()
    for level, limits in [*stages.items(), *((level, budget) for level in reversed(list(stages)))]:
        keep = _reduced(space, level, limits, keep, score, rescore[level])
    if over := space.exceeded(keep, budget):
        raise UserError(f"no model meets all limits at once: raise that on {' or '.join(over)}")
    return keep


def _reduced(space: SearchSpace, level: str, limits: Limits, keep: Masks, score: Score, rescore: int) -> Masks:
    """The keep after removals at one level until the limits hold or nothing is left to remove."""
    rises: dict[Unit, float] = {}
    count = 0
    while over := space.exceeded(keep, limits):
        if not rises or (rescore and count % rescore == 0):
            left = [unit for kind in LEVELS[level] for unit in space.units.kept(keep, kind)]
            rises = dict(zip(left, score(keep, left).tolist(), strict=True))
        moves = _removals(space, level, keep, rises)
        savings = zip(space.savings(keep, moves, over), moves, strict=True)
        ratios = [(sum(rises[unit] for unit in move) / saving, move) for saving, move in savings if saving > 0]
        if not ratios:
            break
        keep = space.units.without(keep, min(ratios, key=lambda pair: pair[0])[1])
        count += 1
    return keep


def _removals(space: SearchSpace, level: str, keep: Masks, rises: Mapping[Unit, float]) -> list[list[Unit]]:
    """The removals that a level allows next."""
    if level == "block":
        blocks = space.units.kept(keep, "block")
        return [[unit] for unit in blocks] if len(blocks) > 1 else []
    kept = [unit for kind in LEVELS[level] for unit in space.units.kept(keep, kind)]
    by_width = [list(units) for _, units in itertools.groupby(kept, key=lambda unit: (unit.kind, unit.block))]
    moves = [move for units in by_width if (move := _down_one(space, units, rises))]
    return [list(itertools.chain(*moves))] if space.uniform and moves else moves


def _down_one(space: SearchSpace, units: list[Unit], rises: Mapping[Unit, float]) -> list[Unit]:
    """The least important units of one width, as many as go down to the next allowed count; none at the smallest."""
    smaller = [count for count in space.counts(units[0].block, units[0].kind) if count < len(units)]
    excess = len(units) - smaller[-1] if smaller else 0
    return sorted(units, key=lambda unit: rises[unit])[:excess]
