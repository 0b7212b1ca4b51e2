"""Evolutionary search with successive halving, and random search at the same number of evaluations.

As SnapGen-V searches its temporal layers (arXiv 2412.10494): layouts that exceed a limit are never evaluated, the
others are bred by tournaments, crossover and mutation. Each generation is halved from fidelity to fidelity (Jamieson
and Talwalkar, arXiv 1502.07943), so that only the better layouts cost much.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.ranges import CountOrZero, Range, Share, Size
from mobile_video_jax.search.random_layouts import Sampler, mutated
from mobile_video_jax.search.space import Layout

# The loss of a layout at a fidelity: how much its evaluation costs, such as steps of training.
Loss = Callable[[Layout, int], float]


@dataclasses.dataclass(frozen=True)
class EvolutionConfig(Config):
    """Settings of evolutionary search."""

    population: Annotated[int, Range(2, 4096)] = 16  # layouts of a generation
    generations: Size = 6  # generations, the first one random
    tournament: Size = 4  # layouts of which the best becomes a parent
    crossover: Share = 0.5  # probability that a child has two parents, each position from either
    mutations: Size = 2  # most positions that are changed in a child
    fidelities: Annotated[tuple[CountOrZero, ...], Range(1, 8)] = (0, 50, 150)  # training steps; halved in between


class Evaluation(NamedTuple):
    """The loss of a layout at a fidelity."""

    layout: Layout
    fidelity: int
    loss: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The best layout of a search, and every evaluation in order."""

    best: Evaluation
    evaluations: tuple[Evaluation, ...]

    def at(self, fidelity: int) -> dict[Layout, float]:
        """The losses at one fidelity."""
        return {layout: loss for layout, at, loss in self.evaluations if at == fidelity}


def evolve(sampler: Sampler, loss: Loss, config: EvolutionConfig, seed: int = 0) -> Outcome:
    """The layout of least loss at the last fidelity, the same for the same seed and losses.

    The better half of a generation stays, children fill it up. No layout is evaluated twice at one fidelity. Raises
    UserError where no layout is within the sampler's limits.
    """
    rng, halving = np.random.default_rng(seed), _Halving(loss, config.fidelities)
    ranking = halving.rank(sampler.distinct(config.population, rng))
    for _ in range(config.generations - 1):
        parents = ranking[: math.ceil(len(ranking) / 2)]
        children = _children(sampler, ranking, config.population - len(parents), halving.known, config, rng)
        ranking = halving.rank([*parents, *children])
    return halving.outcome()


def random_search(
    sampler: Sampler, loss: Loss, sizes: Sequence[int], config: EvolutionConfig, seed: int = 0
) -> Outcome:
    """The best of random layouts, of which `sizes` are evaluated at each fidelity: those of another search."""
    halving = _Halving(loss, config.fidelities)
    halving.rank(sampler.distinct(sizes[0], np.random.default_rng(seed)), sizes)
    return halving.outcome()


def random_sizes(config: EvolutionConfig) -> list[int]:
    """The most layouts that evolution evaluates at each fidelity."""
    children = config.population - math.ceil(config.population / 2)
    first = config.population + (config.generations - 1) * children
    return [math.ceil(first / 2**i) for i in range(len(config.fidelities))]


def rank_correlation(outcome: Outcome, fidelities: Sequence[int]) -> dict[str, float]:
    """Spearman's rank correlation of the losses at each earlier fidelity and at the last, where three or more vary."""
    last, correlations = outcome.at(fidelities[-1]), {}
    for fidelity in fidelities[:-1]:
        early = outcome.at(fidelity)
        pairs = [(early[layout], late) for layout, late in last.items()]
        if len(pairs) > 2 and all(map(np.ptp, zip(*pairs, strict=True))):
            correlations[str(fidelity)] = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    return correlations


def _children(
    sampler: Sampler,
    ranking: Sequence[Layout],
    count: int,
    known: Callable[[Layout], bool],
    config: EvolutionConfig,
    rng: np.random.Generator,
) -> list[Layout]:
    """New layouts within the limits; where breeding brings none, random ones."""
    children: dict[Layout, None] = {}
    for _ in range(50 * count):
        child = _parent(ranking, config, rng)
        if rng.random() < config.crossover:
            other = _parent(ranking, config, rng)
            child = tuple(x if rng.random() < 0.5 else y for x, y in zip(child, other, strict=True))
        child = mutated(sampler.space, child, int(rng.integers(1, config.mutations + 1)), rng)
        if len(children) < count and sampler.feasible(child) and not known(child):
            children[child] = None
    missing = sampler.distinct(count - len(children), rng)
    return [*children, *(layout for layout in missing if not known(layout) and layout not in children)]


def _parent(ranking: Sequence[Layout], config: EvolutionConfig, rng: np.random.Generator) -> Layout:
    """The winner of a tournament: the first in the ranking of some random layouts."""
    return ranking[int(rng.integers(len(ranking), size=config.tournament).min())]


class _Halving:
    """Evaluates layouts at rising fidelity, each time the better half of those before."""

    def __init__(self, loss: Loss, fidelities: Sequence[int]):
        self._loss, self._fidelities = loss, fidelities
        self._losses: dict[tuple[Layout, int], float] = {}

    def known(self, layout: Layout) -> bool:
        """True for a layout that was evaluated."""
        return (layout, self._fidelities[0]) in self._losses

    def rank(self, layouts: Sequence[Layout], sizes: Sequence[int] = ()) -> list[Layout]:
        """The layouts from best to worst: those that went further first. `sizes` may say how many go how far."""
        ranking: list[Layout] = []
        remaining = list(layouts)
        for i, fidelity in enumerate(self._fidelities):
            size = sizes[i] if sizes else math.ceil(len(layouts) / 2**i)
            remaining, behind = remaining[:size], remaining[size:]
            ranking = [*behind, *ranking]
            remaining.sort(key=lambda layout: self._evaluate(layout, fidelity))
        return [*remaining, *ranking]

    def outcome(self) -> Outcome:
        evaluations = tuple(Evaluation(*key, loss) for key, loss in self._losses.items())
        finished = [evaluation for evaluation in evaluations if evaluation.fidelity == self._fidelities[-1]]
        return Outcome(min(finished, key=lambda evaluation: evaluation.loss), evaluations)

    def _evaluate(self, layout: Layout, fidelity: int) -> float:
        """The loss, infinite where training diverged."""
        key = layout, fidelity
        if key not in self._losses:
            loss = self._loss(layout, fidelity)
            self._losses[key] = loss if math.isfinite(loss) else math.inf
        return self._losses[key]
