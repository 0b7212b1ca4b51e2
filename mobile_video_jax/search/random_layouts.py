"""Random layouts within limits, and of a layout's own cost."""

import dataclasses
import functools

import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.search.costs import CostTable, Limits
from mobile_video_jax.search.path_costs import PathCosts, paths_by_peak
from mobile_video_jax.search.space import Choice, Layout, Space

ATTEMPTS = 5_000  # random layouts that are tried before a search for one gives up


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Random layouts of a space within limits, none of which is evaluated."""

    space: Space
    table: CostTable
    limits: Limits

    def feasible(self, layout: Layout) -> bool:
        """True for a layout within all limits."""
        return not self.table.exceeded(layout, self.limits, self.space.outer)

    def sample(self, rng: np.random.Generator) -> Layout:
        """A random layout, about as likely as any other within the limits.

        A walk makes at each position one of the choices from which each limit can still be kept; random changes within
        the limits then forget where it began. Raises UserError where no layout within the limits comes up.
        """
        for _ in range(ATTEMPTS if self._paths else 0):
            layout = self._walk(self._paths[rng.integers(len(self._paths))], rng)
            if layout and self.feasible(layout):
                return self._mixed(layout, rng)
        raise UserError(f"no random layout is within the limits on {', '.join(self.limits)}: raise them")

    def distinct(self, count: int, rng: np.random.Generator) -> list[Layout]:
        """Up to `count` different random layouts, fewer where the space holds no more."""
        layouts: dict[Layout, None] = {}
        for _ in range(100 + 10 * count):
            if len(layouts) == count:
                break
            layouts[self.sample(rng)] = None
        return list(layouts)

    def _mixed(self, layout: Layout, rng: np.random.Generator) -> Layout:
        for _ in range(4 * len(layout)):
            changed = mutated(self.space, layout, int(rng.integers(1, 3)), rng)
            layout = changed if self.feasible(changed) else layout
        return layout

    @functools.cached_property
    def _paths(self) -> list[PathCosts]:
        """The sizes of the largest op at which each limit by itself can be kept."""
        paths = paths_by_peak(self.space, self.table, self.limits)
        return [path for path in paths if path.fits(path.start + path.remaining[0][self.space.outer])]

    def _walk(self, path: PathCosts, rng: np.random.Generator) -> Layout:
        """A random layout; empty where limits that can be kept one by one cannot be kept together."""
        layout: Layout = ()
        costs, before = path.start, self.space.outer
        for choices, remaining in zip(self.space.positions, path.remaining[1:], strict=True):
            after = {choice: costs + path.step(before, choice) for choice in choices}
            possible = [choice for choice in choices if path.fits(after[choice] + remaining[choice.resolution])]
            if not possible:
                return ()
            choice = possible[rng.integers(len(possible))]
            layout, costs, before = (*layout, choice), after[choice], choice.resolution
        return layout


def mutated(space: Space, layout: Layout, genes: int, rng: np.random.Generator) -> Layout:
    """The layout with so many random positions set to other choices, where they have any."""
    changed: list[Choice] = list(layout)
    for i in rng.permutation(len(layout))[:genes]:
        if others := [choice for choice in space.positions[i] if choice != layout[i]]:
            changed[i] = others[rng.integers(len(others))]
    return tuple(changed)


def same_cost_layouts(
    space: Space, table: CostTable, layout: Layout, metric: str, count: int, *, tolerance: float = 0.02, seed: int = 0
) -> list[Layout]:
    """`count` different random layouts that cost what `layout` does, but for a share of `tolerance`: a search's floor.

    Each is where a walk from a random layout towards this cost comes to. There may be fewer.
    """
    target: float = getattr(table.of(layout, space.outer), metric)
    rng = np.random.default_rng(seed)
    sampler = Sampler(space, table, {})

    def distance(other: Layout) -> float:
        cost: float = getattr(table.of(other, space.outer), metric)
        return abs(cost / target - 1)

    layouts: dict[Layout, None] = {}
    walker = sampler.sample(rng)
    for _ in range(ATTEMPTS):
        if distance(walker) <= tolerance:
            layouts |= {walker: None} if walker != layout else {}
            if len(layouts) == count:
                break
            walker = sampler.sample(rng)
        moved = mutated(space, walker, int(rng.integers(1, 3)), rng)
        if distance(moved) <= distance(walker) or rng.random() < 0.05:  # out of a dead end
            walker = moved
    return list(layouts)
