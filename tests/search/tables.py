"""Random spaces, cost tables and rises, and the search by brute force that exact ones are compared with."""

import itertools
import math

import numpy as np

from mobile_video_jax.search.costs import Costs, CostTable, Limits
from mobile_video_jax.search.path_costs import Rises
from mobile_video_jax.search.space import Layout, Space, uniform_space


def random_costs(rng: np.random.Generator) -> Costs:
    return Costs(*rng.uniform(0.1, 3, 4).round(1).tolist())


def random_table(rng: np.random.Generator, space: Space) -> CostTable:
    choices = {choice: random_costs(rng) for choice in space.choices}
    moves = {pair: random_costs(rng)._replace(peak_bytes=0.0) for pair in space.moves}
    return CostTable(random_costs(rng), choices, moves, "random")


def random_instance(seed: int, depth: int, kinds: int = 2, resolutions: tuple[int, ...] = (1, 2)):
    rng = np.random.default_rng(seed)
    space = uniform_space(depth, [f"kind{i}" for i in range(kinds)], resolutions)
    rises = [{choice: float(rng.normal()) for choice in space.choices} for _ in range(depth)]
    return space, rises, random_table(rng, space)


def rise_of(layout: Layout, rises: Rises) -> float:
    return sum(here[choice] for here, choice in zip(rises, layout, strict=True))


def brute_force(space: Space, rises: Rises, table: CostTable, limits: Limits) -> float:
    """The least rise of all layouts within the limits, infinite for none."""
    layouts = itertools.product(*space.positions)
    within = (rise_of(layout, rises) for layout in layouts if not table.exceeded(layout, limits, space.outer))
    return min(within, default=math.inf)
