"""Greedy search for what to keep within a budget, over all levels at once."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.prune.search import ScoreUnits, removals_of
from mobile_video_jax.prune.space import Limits, SearchSpace
from mobile_video_jax.prune.units import LEVELS, Unit

# The losses of masked models.
Losses = Callable[[Sequence[Masks]], Float64[np.ndarray, "u"]]
# A kind of unit and a block, -1 for all blocks.
Place = tuple[str, int]


class Removal(NamedTuple):
    """Units that go together, and the fractions of the unpruned model's costs that this saves."""

    units: list[Unit]
    saving: float


def cross_level(space: SearchSpace, limits: Limits, losses: Losses, rank: ScoreUnits, at_once: int = 8) -> Masks:
    """The masks after removals, of any level, of the least rise of the loss per saving, until the limits hold.

    A removal is a block, or the units of lowest rank of one block's width (of all blocks, if widths are uniform) down
    to the next multiple. Its rise is measured as a whole and again before it is chosen. Rises mostly grow as more is
    removed, so that the least earlier ones are measured first, `at_once` together, until none that waits was less than
    the least new one (lazy greedy: Minoux, Optimization Techniques, 1978). Units are ranked again whenever a block
    went. Raises UserError for a budget out of reach.
    """
    space.check(limits)
    keep, ranks = space.units.all(), dict[Unit, float]()
    earlier = dict[Place, float]()
    while exceeded := space.exceeded(keep, limits):
        ranks = ranks or _ranks(space, keep, rank)
        removals = _removals(space, keep, ranks, exceeded)
        if not removals:
            raise space.refusal(keep, limits)
        ratios = _measured(space, keep, removals, losses, earlier, at_once)
        best = min(ratios, key=lambda place: ratios[place])
        keep, earlier = space.units.without(keep, removals[best].units), earlier | ratios
        ranks = {} if best[0] == "block" else ranks
    return keep


def _ranks(space: SearchSpace, keep: Masks, rank: ScoreUnits) -> dict[Unit, float]:
    """Ranks of heads and channels; a block needs none."""
    kinds = [kind for level in space.levels if level != "block" for kind in LEVELS[level]]
    units = [unit for kind in kinds for unit in space.units.kept(keep, kind)]
    blocks = dict.fromkeys(space.units.kept(keep, "block"), 0.0)
    return blocks | (dict(zip(units, rank(keep, units).tolist(), strict=True)) if units else {})


def _removals(
    space: SearchSpace, keep: Masks, ranks: Mapping[Unit, float], exceeded: Sequence[str]
) -> dict[Place, Removal]:
    """The removals that save some of the exceeded costs."""
    units = {
        (removal[0].kind, -1 if space.uniform and level != "block" else removal[0].block): removal
        for level in space.levels
        for removal in removals_of(space, level, keep, ranks)
    }
    savings = space.savings(keep, list(units.values()), exceeded)
    pairs = zip(units.items(), savings, strict=True)
    return {place: Removal(removal, saving) for (place, removal), saving in pairs if saving > 0}


def _measured(
    space: SearchSpace,
    keep: Masks,
    removals: Mapping[Place, Removal],
    losses: Losses,
    earlier: Mapping[Place, float],
    at_once: int,
) -> dict[Place, float]:
    """Rises of the loss per saving of the removals that can be the least; unmeasured ones come first."""
    order = sorted(removals, key=lambda place: earlier.get(place, -np.inf))
    ratios: dict[Place, float] = {}
    for start in range(0, len(order), at_once):
        if ratios and min(ratios.values()) <= earlier.get(order[start], -np.inf):
            break
        places = order[start : start + at_once]
        before, *after = losses([keep, *(space.units.without(keep, removals[place].units) for place in places)])
        rises = zip(places, after, strict=True)
        ratios |= {place: float(loss - before) / removals[place].saving for place, loss in rises}
    return ratios
