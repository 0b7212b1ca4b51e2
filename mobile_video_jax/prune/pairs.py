"""Search within a budget by an integer program over measured pairs of levels."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64
from scipy.interpolate import RegularGridInterpolator

from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.prune.cross_level import Losses
from mobile_video_jax.prune.search import removals_of
from mobile_video_jax.prune.space import Limits, SearchSpace
from mobile_video_jax.prune.units import Unit

# Sizes of a level, at most, at which pairs are measured; in between the loss is interpolated.
SIZES = 7


def pairs(space: SearchSpace, limits: Limits, losses: Losses, scores: Mapping[Unit, float]) -> Masks:
    """The model of uniform widths within the limits whose loss is least by measured pairs of levels.

    A level's units go in the order of their scores, so that a model is one integer a level: how many removals it has
    had. With L_ij the measured loss of a model in which levels i and j alone had theirs, and L_i of level i alone, the
    loss of a model is taken as sum of L_ij over pairs - (levels - 2) sum of L_i: all effects of one and of two levels,
    none of three. Integers few enough to try them all. Raises UserError for a budget out of reach.
    """
    space.check(limits)
    order = [_order(space, level, scores) for level in space.levels]
    predicted = _predicted(space, order, losses)
    models = itertools.product(*(range(len(steps)) for steps in order))
    for model in sorted(models, key=lambda model: predicted[model]):
        keep = _keep(space, order, model)
        if keep.block.any() and not space.exceeded(keep, limits):
            return keep
    raise space.refusal(_keep(space, order, [len(steps) - 1 for steps in order]), limits)


def _order(space: SearchSpace, level: str, scores: Mapping[Unit, float]) -> list[list[Unit]]:
    """All units that a level has lost after 0, 1, ... removals."""
    keep, removed = space.units.all(), list[Unit]()
    steps = [removed]
    while removals := removals_of(space, level, keep, scores):
        least = min(removals, key=lambda units: sum(scores[unit] for unit in units))
        keep, removed = space.units.without(keep, least), [*removed, *least]
        steps.append(removed)
    return steps


def _keep(space: SearchSpace, order: Sequence[Sequence[list[Unit]]], model: Sequence[int]) -> Masks:
    removed = (unit for steps, count in zip(order, model, strict=True) for unit in steps[count])
    return space.units.without(space.units.all(), removed)


def _predicted(space: SearchSpace, order: Sequence[Sequence[list[Unit]]], losses: Losses) -> Float64[np.ndarray, "..."]:
    """The loss of every model, from those of models in which two levels alone have lost units."""
    count = len(order)
    chosen = list(itertools.combinations(range(count), min(2, count)))
    tables = {levels: _table(space, order, levels, losses) for levels in chosen}
    alone = {levels[0]: values[:, 0] for levels, values in tables.items() if count == 3}
    alone |= {levels[1]: values[0] for levels, values in tables.items() if count == 3}

    def spread(values: Float64[np.ndarray, "..."], levels: Sequence[int]) -> Float64[np.ndarray, "..."]:
        return np.expand_dims(values, [i for i in range(count) if i not in levels])

    pairs = [spread(values, levels) for levels, values in tables.items()]
    return np.asarray(sum(pairs) - sum(spread(values, [i]) for i, values in alone.items()))


def _table(
    space: SearchSpace, order: Sequence[Sequence[list[Unit]]], levels: Sequence[int], losses: Losses
) -> Float64[np.ndarray, "..."]:
    """The losses of all models in which these levels alone have lost units, measured at SIZES of each."""
    grids = [np.unique(np.linspace(0, len(order[i]) - 1, SIZES).astype(int)).tolist() for i in levels]
    points = list(itertools.product(*grids))
    models = [[dict(zip(levels, point, strict=True)).get(i, 0) for i in range(len(order))] for point in points]
    measured = losses([_keep(space, order, model) for model in models]).reshape([len(grid) for grid in grids])
    every = np.meshgrid(*(np.arange(len(order[i])) for i in levels), indexing="ij")
    return np.asarray(RegularGridInterpolator(grids, measured)(np.stack(every, axis=-1)))
