"""Search within a budget by one integer program over all levels at once."""

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.prune.costs import Number
from mobile_video_jax.prune.space import Limits, SearchSpace
from mobile_video_jax.prune.units import LEVEL_OF, WIDTHS, Unit

# Largest relative gap between a solution's sum of scores and the least.
GAP = 1e-4

# A constraint: coefficients of variables, and the bounds of their sum.
Row = tuple[dict[Hashable, float], float, float]


class _Choice(NamedTuple):
    """A variable of value 0 or 1: a block keeps `size` units of a kind, or for kind "block" is kept."""

    block: int
    kind: str
    size: int


def joint(space: SearchSpace, limits: Limits, scores: Mapping[Unit, float]) -> Masks:
    """The masks of least summed score of removed units within the limits, by one table of scores.

    Minimises sum over removed blocks of s(b) + sum over kept blocks and widths of the least possible sum of s(u) over
    the removed units. Each kept block chooses one count a width: a multiple-choice knapsack (Kellerer, Pferschy and
    Pisinger, Knapsack Problems, chapter 11, 2004), solved by HiGHS. Unlike greedy it takes the scores of all levels to
    add up, and never scores again. Raises UserError for limits out of reach.
    """
    space.check(limits)
    blocks = range(len(space.units.shapes))
    choices = [_Choice(i, "block", 1) for i in blocks]
    choices += [_Choice(i, kind, count) for i in blocks for kind in WIDTHS for count in space.counts(i, kind)]
    ranked = {(i, kind): _ranked(space, scores, i, kind) for i in blocks for kind in WIDTHS}
    losses = [
        -scores.get(Unit("block", choice.block), 0.0)
        if choice.kind == "block"
        else sum((scores[unit] for unit in ranked[choice.block, choice.kind][choice.size :]), 0.0)
        for choice in choices
    ]
    chosen = _solve(space, limits, choices, losses)
    removed = [unit for i, kind, count in chosen if kind != "block" for unit in ranked[i, kind][count:]]
    removed_blocks = set(blocks) - {choice.block for choice in chosen}
    return space.units.without(space.units.all(), [*removed, *(Unit("block", i) for i in removed_blocks)])


def _ranked(space: SearchSpace, scores: Mapping[Unit, float], block: int, kind: str) -> list[Unit]:
    """The block's units of a kind, the highest score first."""
    units = [unit for unit in space.units.kept(space.units.all(), kind) if unit.block == block]
    return sorted(units, key=lambda unit: -scores.get(unit, 0.0))


def _solve(space: SearchSpace, limits: Limits, choices: list[_Choice], losses: list[float]) -> list[_Choice]:
    """The choices of least loss."""
    shared = sorted({(LEVEL_OF[choice.kind], choice.size) for choice in choices if choice.kind != "block"})
    column: dict[Hashable, int] = {key: i for i, key in enumerate([*choices, *(shared if space.uniform else [])])}
    fewest_blocks = 1.0 if "block" in space.levels else float(len(space.units.shapes))
    rows: list[Row] = [
        *_one_count_a_width(choices),
        ({choice: 1.0 for choice in choices if choice.kind == "block"}, fewest_blocks, np.inf),
        *(_within(space, name, limit, choices) for name, limit in limits.items()),
        *(_same_widths(choices, shared) if space.uniform else []),
    ]
    entries = [(value, i, column[key]) for i, (terms, _, _) in enumerate(rows) for key, value in terms.items()]
    values, i, j = zip(*entries, strict=True)
    matrix = csr_array((values, (i, j)), shape=(len(rows), len(column)))
    solution = milp(
        np.concatenate([losses, np.zeros(len(column) - len(choices))]),
        integrality=np.ones(len(column)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(matrix, [row[1] for row in rows], [row[2] for row in rows]),
        options={"mip_rel_gap": GAP},
    )
    if solution.x is None:
        raise UserError(f"no model meets all limits at once: raise that on {' or '.join(limits)}")
    return [choice for choice in choices if solution.x[column[choice]] > 0.5]


def _one_count_a_width(choices: list[_Choice]) -> list[Row]:
    """One count of each kind for a kept block, none for a removed one."""
    widths: dict[tuple[int, str], dict[Hashable, float]] = {}
    for choice in choices:
        if choice.kind != "block":
            terms = widths.setdefault((choice.block, choice.kind), {_Choice(choice.block, "block", 1): -1.0})
            terms[choice] = 1.0
    return [(terms, 0.0, 0.0) for terms in widths.values()]


def _within(space: SearchSpace, name: str, limit: Number, choices: list[_Choice]) -> Row:
    """The limit on a cost, in units of the least cost of a choice, as HiGHS tolerates 1e-6."""
    cost = space.costs[name]
    terms: dict[Hashable, float] = {
        choice: cost.of_empty(space.units.shapes[choice.block]) for choice in choices if choice.kind == "block"
    }
    for choice in choices:
        if choice.kind != "block":
            size = choice.size * space.units.step(choice.kind)
            terms[choice] = cost.of_width(choice.kind, size, space.units.shapes[choice.block])
    unit = min(value for value in terms.values() if value > 0)
    return {key: value / unit for key, value in terms.items()}, -np.inf, (limit - cost.rest) / unit


def _same_widths(choices: list[_Choice], shared: list[tuple[str, int]]) -> list[Row]:
    """One count a level for all blocks."""
    rows: list[Row] = [
        ({choice: 1.0, (LEVEL_OF[choice.kind], choice.size): -1.0}, -np.inf, 0.0)
        for choice in choices
        if choice.kind != "block"
    ]
    for level in sorted({level for level, _ in shared}):
        rows.append(({key: 1.0 for key in shared if key[0] == level}, 1.0, 1.0))
    return rows
