"""Exact search: the layout of least summed rise of the loss within a budget, and the Pareto front.

Position after position, all partial layouts that end at one resolution are held, without those that another one of
them beats in the loss and in every limited cost (label setting, as for shortest paths within resources: Irnich and
Desaulniers in Column Generation, chapter 2, 2005). Changes of resolution cost as the path goes.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.search.bounds import Bound, lower_bound
from mobile_video_jax.search.costs import METRICS, ROUNDING, Costs, CostTable, Limits
from mobile_video_jax.search.path_costs import PathCosts, Rises, Vector, paths_by_peak
from mobile_video_jax.search.space import Choice, Layout, Space, as_text

BEAM = 500  # partial layouts of a resolution that the first, inexact search holds


class Point(NamedTuple):
    """A layout with its summed rise of the loss and its costs."""

    layout: Layout
    rise: float
    costs: Costs


class _Labels(NamedTuple):
    """Partial layouts: rises, costs by metric, and the choices so far as indices into Space.choices."""

    rise: Float64[np.ndarray, "n"]
    costs: Float64[np.ndarray, "n m"]
    choices: Int[np.ndarray, "n i"]

    def extended(self, choice: int, rise: float, costs: Vector) -> "_Labels":
        column = np.full((len(self.rise), 1), choice, self.choices.dtype)
        return _Labels(self.rise + rise, self.costs + costs, np.hstack([self.choices, column]))

    def hopeful(self, bound: Bound | None, done: int, level: int, most: int | None) -> "_Labels":
        """Those that the bound does not exclude, at most so many, the most hopeful ones."""
        if bound is None:
            return self
        ends = bound.ends(done, level, self.rise, self.costs)
        order = np.flatnonzero(ends <= bound.best + ROUNDING * (1 + abs(bound.best)))
        order = order if most is None else order[np.argsort(ends[order])[:most]]
        return _Labels(*(values[order] for values in self))

    def best_of(self, path: PathCosts, remaining: Vector | float = 0.0) -> "_Labels":
        """Those that can end within the limits and that no other beats, the least rise first."""
        order = np.lexsort((*self.costs.T, self.rise))
        order = order[path.fits(self.costs + remaining)[order]]
        best = []
        while order.size:
            best.append(order[0])
            costs = self.costs[order[0]]
            order = order[(self.costs[order] < costs - ROUNDING * np.abs(costs)).any(axis=1)]
        return _Labels(*(values[best] for values in self))


def _joined(parts: Iterable[_Labels]) -> _Labels:
    return _Labels(*map(np.concatenate, zip(*parts, strict=True)))


def best_layout(space: Space, rises: Rises, table: CostTable, limits: Limits) -> Point:
    """The layout of least summed rise within all limits; of equals the cheapest.

    Raises UserError where no layout is within them, with the costs of the cheapest.
    """
    if not (points := _Search(space, rises, table, limits).points()):
        raise _infeasible(space, table, limits)
    return points[0]


def check_feasible(space: Space, table: CostTable, limits: Limits) -> None:
    """Raises UserError where no layout is within the limits, with the costs of the cheapest."""
    best_layout(space, _no_rises(space), table, limits)


def counts_first(space: Space, rises: Rises, table: CostTable, limits: Limits) -> Point:
    """S2DiT's order (arXiv 2601.12719): first how many positions make each choice, then which.

    The counts solve the knapsack of the mean rises over positions. It is not optimal: its rise beside that of
    `best_layout` is what the order costs. Raises UserError as best_layout does.
    """
    mean = {choice: float(np.mean([here[choice] for here in rises if choice in here])) for choice in space.choices}
    counts = collections.Counter(best_layout(space, [mean] * len(rises), table, limits).layout)
    return _Search(space, rises, table, limits, counts).points()[0]


def pareto_front(space: Space, rises: Rises, table: CostTable, metric: str) -> list[Point]:
    """The layouts that no other beats in both rise and this cost, the dearest first: rises rise as costs fall."""
    return _Search(space, rises, table, {metric: np.inf}).points()


def cheapest(space: Space, table: CostTable, metric: str) -> Point:
    """The layout of least cost."""
    return pareto_front(space, _no_rises(space), table, metric)[0]


def _no_rises(space: Space) -> Rises:
    return [dict.fromkeys(space.choices, 0.0)] * len(space.positions)


def _infeasible(space: Space, table: CostTable, limits: Limits) -> UserError:
    for metric, limit in limits.items():
        layout, _, costs = cheapest(space, table, metric)
        if (least := getattr(costs, metric)) > limit:
            return UserError(
                f"no layout is within {limit:,.6g} {METRICS[metric]}: the cheapest, {as_text(layout)}, "
                f"needs {least:,.6g}; raise the budget or add cheaper kinds"
            )
    return UserError(f"no layout meets all limits at once, though one meets each: raise {' or '.join(limits)}")


@dataclasses.dataclass(frozen=True)
class _Search:
    """One search; with `counts`, of the layouts that make each choice so many times."""

    space: Space
    rises: Rises
    table: CostTable
    limits: Limits
    counts: Mapping[Choice, int] | None = None

    def points(self) -> list[Point]:
        """All layouts within the limits that no other beats in rise and every limited cost, the least rise first."""
        paths = paths_by_peak(self.space, self.table, self.limits)
        bounds = self._bounds(paths)
        labels = _joined(map(self._labels, paths, bounds)).best_of(paths[-1])
        layouts = [tuple(self.space.choices[i] for i in row) for row in labels.choices.tolist()]
        return [
            Point(layout, rise, self.table.of(layout, self.space.outer))
            for layout, rise in zip(layouts, labels.rise.tolist(), strict=True)
        ]

    def _bounds(self, paths: Sequence[PathCosts]) -> list[Bound | None]:
        """The bounds where the best layout alone is searched, None for fronts and for given counts.

        A search that holds few partial layouts comes near the best rise, below which the exact one looks.
        """
        if self.counts is not None or not np.isfinite(paths[0].most).all():
            return [None] * len(paths)
        possible = [path.fits(path.start + path.remaining[0][self.space.outer]) for path in paths]
        bounds = [lower_bound(path, self.rises) if fits else None for path, fits in zip(paths, possible, strict=True)]
        best = min((bound.best for bound in bounds if bound), default=np.inf)
        for path, bound in zip(paths, bounds, strict=True):
            if bound:
                few = self._labels(path, dataclasses.replace(bound, best=best), BEAM).best_of(path)
                best = min(best, float(few.rise.min(initial=np.inf)))
        return [bound and dataclasses.replace(bound, best=best) for bound in bounds]

    def _labels(self, path: PathCosts, bound: Bound | None, most: int | None = None) -> _Labels:
        """The best layouts of one size of the largest op, of at most so many partial ones a resolution."""
        start = _Labels(np.zeros(1), path.start[None], np.zeros((1, 0), np.int16))
        states = {(self.space.outer, (0,) * len(self.space.choices)): start}
        for i, (choices, rises) in enumerate(zip(self.space.positions, self.rises, strict=True)):
            grown: dict[tuple[int, tuple[int, ...]], list[_Labels]] = collections.defaultdict(list)
            for ((before, used), labels), choice in itertools.product(states.items(), choices):
                number = self.space.choices.index(choice)
                if (counted := self._counted(used, number)) is not None:
                    longer = labels.extended(number, rises[choice], path.step(before, choice))
                    grown[choice.resolution, counted].append(longer)
            states = {
                key: _joined(parts).hopeful(bound, i + 1, key[0], most).best_of(path, path.remaining[i + 1][key[0]])
                for key, parts in grown.items()
            }
        return _joined(labels._replace(costs=labels.costs + path.end(before)) for (before, _), labels in states.items())

    def _counted(self, used: tuple[int, ...], number: int) -> tuple[int, ...] | None:
        """The uses of each choice with one more, all 0 without counts; None for one too many."""
        if self.counts is None:
            return used
        more = (*used[:number], used[number] + 1, *used[number + 1 :])
        return more if more[number] <= self.counts.get(self.space.choices[number], 0) else None
