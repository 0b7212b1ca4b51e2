"""Budgets, their division between the three levels, and the model that the paper's shares leave."""

from collections.abc import Sequence

from mobile_video_jax.dit.config import BlockShape
from mobile_video_jax.prune.config import Ratios
from mobile_video_jax.prune.costs import Number
from mobile_video_jax.prune.space import Limits, SearchSpace
from mobile_video_jax.prune.units import LEVEL_OF, with_widths

PAPER = Ratios()


def target_shapes(space: SearchSpace, levels: Sequence[str], ratios: Ratios = PAPER) -> tuple[BlockShape, ...]:
    """The model that keeps `ratios` of these levels and all of the others, to the nearest allowed sizes."""

    def width(block: int, kind: str) -> int:
        counts = space.counts(block, kind)
        ratio = getattr(ratios, LEVEL_OF[kind]) if LEVEL_OF[kind] in levels else 1.0
        return space.units.step(kind) * min(counts, key=lambda count: abs(count - ratio * counts[-1]))

    shapes = [
        with_widths(shape, {kind: width(i, kind) for kind in LEVEL_OF}) for i, shape in enumerate(space.units.shapes)
    ]
    depth = round(len(shapes) * ratios.block) if "block" in levels else len(shapes)
    return tuple(shapes[: max(1, depth)])


def target_limits(space: SearchSpace, ratios: Ratios = PAPER) -> dict[str, Number]:
    """The costs, as limits, of the model that keeps `ratios` of all levels of the space."""
    shapes = target_shapes(space, space.levels, ratios)
    return {name: cost.of(shapes) for name, cost in space.costs.items()}


def fraction_limits(space: SearchSpace, fractions: Limits) -> dict[str, Number]:
    """Fractions of the unpruned model's costs as limits. Raises UserError for limits out of reach."""
    limits = {
        name: fraction * (space.costs[name].of(space.units.shapes) if name in space.costs else 1.0)
        for name, fraction in fractions.items()
    }
    space.check(limits)
    return limits


def level_limits(space: SearchSpace, limits: Limits, ratios: Ratios = PAPER) -> dict[str, dict[str, Number]]:
    """The limits after each level, coarse to fine; after the last they are `limits`.

    Each level's share of the removed costs is that which it has in a model that keeps `ratios`: of the parameters of
    the paper's blocks 56 % for blocks, 26 % for heads, 18 % for channels.
    """
    after: dict[str, dict[str, Number]] = {level: {} for level in space.levels}
    for name, limit in limits.items():
        cost = space.costs[name]
        chain = [cost.of(target_shapes(space, space.levels[:i], ratios)) for i in range(len(space.levels) + 1)]
        removed = [chain[0] - value for value in chain[1:]]
        for level, part in zip(space.levels, removed, strict=True):
            after[level][name] = chain[0] - part * (chain[0] - limit) / (removed[-1] or 1)
    return after
