"""The limited costs of a layout as a path: what each step adds, and the least that the rest of the way still costs.

The largest op is no sum. So a limit on memory is met once for each size that the largest op may have: then only weights
add up, and a step with a larger op costs infinity.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float64

from mobile_video_jax.search.costs import ROUNDING, Costs, CostTable, Limits
from mobile_video_jax.search.space import Choice, Space

Vector = Float64[np.ndarray, "m"]
# Rise of the loss at each position by the choice that is made there.
Rises = Sequence[Mapping[Choice, float]]


@dataclasses.dataclass(frozen=True)
class PathCosts:
    """Vectors of the m limited costs of layouts whose largest op is at most `peak` bytes."""

    space: Space
    table: CostTable
    limits: Limits
    peak: float = np.inf  # without bound where memory is not limited

    @functools.cached_property
    def most(self) -> Vector:
        """The limits, with a margin for rounding."""
        return np.asarray([limit * (1 + ROUNDING) for limit in self.limits.values()])

    @functools.cached_property
    def start(self) -> Vector:
        """The costs before the first position."""
        peaks = [self.peak if name == "memory" else 0.0 for name in self.limits]
        return np.asarray(self._vector(self.table.rest) + peaks)

    def step(self, before: int, choice: Choice) -> Vector:
        """What a choice adds behind a position of some resolution."""
        return np.asarray(self._moves[before, choice.resolution] + self._choices[choice])

    @functools.cached_property
    def _moves(self) -> dict[tuple[int, int], Vector]:
        stays = [(level, level) for level in frozenset().union(*self.space.levels)]
        return {pair: self._vector(self.table.move(*pair)) for pair in (*stays, *self.space.moves)}

    @functools.cached_property
    def _choices(self) -> dict[Choice, Vector]:
        return {choice: self._vector(self.table.choices[choice]) for choice in self.space.choices}

    def end(self, before: int) -> Vector:
        """What the end adds behind a last position of some resolution."""
        return self._moves[before, self.space.outer]

    @functools.cached_property
    def remaining(self) -> list[dict[int, Vector]]:
        """Behind 0, 1, ... positions and by resolution, the least that each cost still rises, each by itself."""
        levels = self.space.levels[:-1]
        least = [{level: self.end(level) for level in levels[-1]}]
        for here, choices in zip(levels[-2::-1], reversed(self.space.positions), strict=True):
            after = least[-1]
            least.append(
                {
                    before: np.min([self.step(before, x) + after[x.resolution] for x in choices], axis=0)
                    for before in here
                }
            )
        return least[::-1]

    def fits(self, costs: Float64[np.ndarray, "*n m"]) -> Bool[np.ndarray, "*n"]:
        """True where costs [... m] are within all limits."""
        return np.asarray((np.isfinite(costs) & (costs <= self.most)).all(axis=-1))

    def _vector(self, costs: Costs) -> Vector:
        if costs.peak_bytes > self.peak:
            return np.full(len(self.limits), np.inf)
        return np.array([costs.weight_bytes if name == "memory" else getattr(costs, name) for name in self.limits])


def paths_by_peak(space: Space, table: CostTable, limits: Limits) -> list[PathCosts]:
    """The costs of paths for each size of the largest op; a single one where memory is not limited."""
    if "memory" not in limits:
        return [PathCosts(space, table, limits)]
    parts = [*table.moves.values(), *(table.choices[choice] for choice in space.choices)]
    peaks = sorted({max(part.peak_bytes, table.rest.peak_bytes) for part in parts})
    return [PathCosts(space, table, limits, peak) for peak in peaks]
