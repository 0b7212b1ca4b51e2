"""The layouts that a search ends with: the chosen one, and those that it is compared with."""

import dataclasses

from mobile_video_jax.core.progress import say
from mobile_video_jax.metrics.paired import Comparison, compare
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.search.costs import Costs, Limits
from mobile_video_jax.search.dynamic import Point, best_layout, cheapest, counts_first, pareto_front
from mobile_video_jax.search.evolution import Outcome, evolve, random_search, random_sizes
from mobile_video_jax.search.importance import Importance, importance
from mobile_video_jax.search.losses import LayoutLosses
from mobile_video_jax.search.random_layouts import Sampler, same_cost_layouts
from mobile_video_jax.search.space import Layout

CHOSEN, TRAINED = "chosen", "trained"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A layout with its costs and the rise of the held-out loss over the trained network's, before any training."""

    layout: Layout
    costs: Costs
    rise: Comparison | None = None  # None where no network is trained


@dataclasses.dataclass(frozen=True)
class Searched:
    """The result of a search."""

    method: str
    limits: Limits
    candidates: dict[str, Candidate]  # by name, the chosen one as CHOSEN
    importance: Importance | None = None  # with the dynamic program
    front: tuple[Point, ...] = ()  # with it, of the summed rise and the first limited cost
    outcomes: dict[str, Outcome] = dataclasses.field(default_factory=dict)  # with the others, by method

    @property
    def by_loss(self) -> bool:
        """True where layouts are compared by losses, False where they are by cost alone."""
        return all(candidate.rise for candidate in self.candidates.values())

    @property
    def metric(self) -> str:
        """The first limited cost, by which layouts are compared."""
        return next(iter(self.limits))


def search_dynamic(sampler: Sampler, losses: LayoutLosses, config: SearchConfig) -> Searched:
    """The exact search on importances, the same with counts first, and the front."""
    space, table, limits = sampler.space, sampler.table, sampler.limits
    scores = importance(space, losses, config.seed)
    chosen, counted = (find(space, scores.means, table, limits) for find in (best_layout, counts_first))
    front = pareto_front(space, scores.means, table, next(iter(limits)))
    layouts = {CHOSEN: chosen.layout, "counts first": counted.layout}
    return Searched("dp", limits, _compared(layouts, sampler, losses, config), scores, tuple(front))


def search_evolution(sampler: Sampler, losses: LayoutLosses, config: SearchConfig) -> Searched:
    """Evolution on held-out losses, and random search with as many evaluations."""
    evolution = config.evolution
    evolved = evolve(sampler, losses.mean, evolution, config.seed)
    sizes = [len(evolved.at(fidelity)) for fidelity in evolution.fidelities]
    sampled = random_search(sampler, losses.mean, sizes, evolution, config.seed)
    layouts = {CHOSEN: evolved.best.layout, "random search": sampled.best.layout}
    outcomes = {"evolution": evolved, "random": sampled}
    return Searched("evolution", sampler.limits, _compared(layouts, sampler, losses, config), outcomes=outcomes)


def search_random(sampler: Sampler, losses: LayoutLosses, config: SearchConfig) -> Searched:
    """Random search with the evaluations that evolution would have at most."""
    sampled = random_search(sampler, losses.mean, random_sizes(config.evolution), config.evolution, config.seed)
    compared = _compared({CHOSEN: sampled.best.layout}, sampler, losses, config)
    return Searched("random", sampler.limits, compared, outcomes={"random": sampled})


METHODS = {"dp": search_dynamic, "evolution": search_evolution, "random": search_random}


def _compared(
    layouts: dict[str, Layout], sampler: Sampler, losses: LayoutLosses, config: SearchConfig
) -> dict[str, Candidate]:
    """These layouts beside the trained network, the cheapest layout and random ones of the chosen one's cost."""
    space, table, metric = sampler.space, sampler.table, next(iter(sampler.limits))
    trained = losses.network.trained(space)
    floor = same_cost_layouts(space, table, layouts[CHOSEN], metric, config.floor, seed=config.seed)
    if len(floor) < config.floor:
        say(f"search: {len(floor)} of {config.floor} random layouts have the chosen one's cost")
    named = {TRAINED: trained, **layouts, "cheapest": cheapest(space, table, metric).layout}
    named |= {f"random {i + 1}": layout for i, layout in enumerate(floor)}
    before = losses.clips(trained)
    return {
        name: Candidate(layout, table.of(layout), compare(before, losses.clips(layout), config.seed))
        for name, layout in named.items()
    }
