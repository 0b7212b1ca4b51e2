"""Lower bounds on the rise that a partial layout ends with, which leave few partial layouts to hold.

Lagrangian relaxation (Geoffrion, Mathematical Programming Study 2, 1974): limits are replaced by prices of the costs.
The cheapest path at these prices is found at once and bounds every layout's rise; subgradient steps raise the bound.
"""

import dataclasses

import numpy as np
from jaxtyping import Float64

from mobile_video_jax.search.path_costs import PathCosts, Rises, Vector

STEPS = 60  # of the subgradient; more change little


@dataclasses.dataclass(frozen=True)
class Bound:
    """Prices of the m costs, in rise for a whole limit, and the least priced rise behind each position."""

    path: PathCosts
    prices: Vector
    remaining: list[dict[int, float]]
    best: float  # the rise of a layout within all limits, infinite where none was seen

    def ends(
        self, done: int, level: int, rise: Float64[np.ndarray, "n"], costs: Float64[np.ndarray, "n m"]
    ) -> Float64[np.ndarray, "n"]:
        """The least rises that partial layouts of `done` positions can end with; infinite above a limit."""
        within = np.isfinite(costs).all(axis=1)
        priced = (np.where(within[:, None], costs, 0.0) / self.path.most - 1) @ self.prices
        return np.asarray(np.where(within, rise + priced + self.remaining[done][level], np.inf))


def lower_bound(path: PathCosts, rises: Rises) -> Bound:
    """The best bound of some subgradient steps. The limits must be finite, and each by itself be kept by a layout."""
    spread = float(sum(max(here.values()) - min(here.values()) for here in rises)) or 1.0
    prices, best = np.zeros(len(path.limits)), np.inf
    bounds: list[tuple[float, Vector, list[dict[int, float]]]] = []
    for step in range(STEPS):
        remaining = _remaining(path, rises, prices)
        rise, costs = _cheapest(path, rises, prices, remaining)
        excess = costs / path.most - 1
        best = min(best, rise) if path.fits(costs) else best
        bounds.append((rise + float(excess @ prices), prices, remaining))
        length = spread / (step + 1) / max(float(np.linalg.norm(excess)), 1e-12)
        prices = np.maximum(prices + length * excess / 4, 0.0)
    _, prices, remaining = max(bounds, key=lambda bound: bound[0])
    return Bound(path, prices, remaining, best)


def _remaining(path: PathCosts, rises: Rises, prices: Vector) -> list[dict[int, float]]:
    """Behind 0, 1, ... positions and by resolution, the least priced rise of the rest of the way."""
    levels = path.space.levels[:-1]
    least = [{level: _priced(path.end(level), path, prices) for level in levels[-1]}]
    for here, choices, rise in zip(levels[-2::-1], path.space.positions[::-1], rises[::-1], strict=True):
        after = least[-1]
        least.append(
            {
                before: min(
                    rise[x] + _priced(path.step(before, x), path, prices) + after[x.resolution] for x in choices
                )
                for before in here
            }
        )
    return least[::-1]


def _cheapest(path: PathCosts, rises: Rises, prices: Vector, remaining: list[dict[int, float]]) -> tuple[float, Vector]:
    """The rise and the costs of the layout of least priced rise."""
    rise, costs, before = 0.0, path.start, path.space.outer
    for choices, here, after in zip(path.space.positions, rises, remaining[1:], strict=True):
        values = [here[x] + _priced(path.step(before, x), path, prices) + after[x.resolution] for x in choices]
        choice = choices[int(np.argmin(values))]
        rise, costs, before = rise + here[choice], costs + path.step(before, choice), choice.resolution
    return rise, np.asarray(costs + path.end(before))


def _priced(costs: Vector, path: PathCosts, prices: Vector) -> float:
    return float((costs / path.most) @ prices) if np.isfinite(costs).all() else np.inf
