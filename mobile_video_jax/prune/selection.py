"""Selection of what to keep: scores of all units, the plan of each search, and how they compare."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mobile_video_jax.core.progress import say
from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.prune.baselines import chance, magnitude
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.prune.cross_level import cross_level
from mobile_video_jax.prune.curves import Point, level_curves
from mobile_video_jax.prune.joint import joint
from mobile_video_jax.prune.pairs import pairs
from mobile_video_jax.prune.plan import Plan
from mobile_video_jax.prune.search import ScoreUnits, greedy
from mobile_video_jax.prune.sensitivity import Scorer, Scores, rank_correlation
from mobile_video_jax.prune.units import LEVEL_OF, LEVELS, Unit


@dataclasses.dataclass(frozen=True)
class Pruned:
    """The result of pruning: a plan by each search, and the scores that they follow from."""

    plan: Plan
    keeps: dict[str, Masks]  # what each search keeps, by its name
    losses: dict[str, float]  # distillation loss of each
    chosen: str  # the search whose plan was sliced
    scores: dict[Unit, float]  # of all units of the unpruned model
    correlation: dict[str, float]  # rank correlation of exact and first-order scores, by kind of unit
    curves: dict[str, list[Point]]  # loss by share removed, for each level
    held_out: dict[str, float] = dataclasses.field(default_factory=dict)  # velocity loss before and after

    @property
    def keep(self) -> Masks:
        """The masks of the plan that was sliced."""
        return self.keeps[self.chosen]


def select(config: PruneConfig, plan: Plan, scorer: Scorer) -> Pruned:
    """Scores all units and searches. Scores by weights or by chance give the greedy plan alone."""
    space, kinds = plan.space, [kind for level in plan.space.levels for kind in LEVELS[level]]
    units = [unit for kind in kinds for unit in space.units.kept(space.units.all(), kind)]
    score = _score_units(config, scorer)
    say(f"prune: scoring each of {len(units)} units, then searching, from blocks to channels")
    scores = dict(zip(units, score(space.units.all(), units).tolist(), strict=True))
    keeps, curves, correlation = {"greedy": greedy(space, plan.level_limits, score)}, {}, {}
    if config.score == "kd":
        keeps["joint"] = joint(space, plan.limits, scores)
        if config.search == "cross_level":
            keeps["cross_level"] = cross_level(space, plan.limits, scorer.losses, _first_order(config, scorer))
        if config.search == "pairs":
            keeps["pairs"] = pairs(space, plan.limits, scorer.losses, scores)
        curves = level_curves(scorer, space, scores)
        correlation = _correlation(config, scorer, scores)
    losses = dict(zip(keeps, scorer.losses(list(keeps.values())).tolist(), strict=True))
    return Pruned(
        plan=plan,
        keeps=keeps,
        losses=losses,
        chosen=config.search,
        scores=scores,
        correlation=correlation,
        curves=curves,
    )


def _correlation(config: PruneConfig, scorer: Scorer, scores: dict[Unit, float]) -> dict[str, float]:
    """The correlation with first-order scores, where heads and channels were scored exactly."""
    widths = [unit for unit in scores if unit.kind != "block"]
    if not widths or "taylor" in (config.heads, config.channels):
        return {}
    first_order = scorer.taylor(scorer.units.all(), widths, probes=config.probes, seed=config.seed)
    return rank_correlation(widths, np.array([scores[unit] for unit in widths]), first_order)


def _score_units(config: PruneConfig, scorer: Scorer) -> ScoreUnits:
    if config.score == "random":
        return chance(config.seed)
    if config.score == "magnitude":
        return magnitude(scorer.params, scorer.units)
    return _kd_scores(config, scorer)


def _first_order(config: PruneConfig, scorer: Scorer) -> ScoreUnits:
    return lambda keep, units: scorer.taylor(keep, units, probes=config.probes, seed=config.seed)


def _kd_scores(config: PruneConfig, scorer: Scorer) -> ScoreUnits:
    """Scores by the distillation loss: exact for blocks, exact or to first order for heads and channels."""
    scoring = {"block": "exact", "head": config.heads, "channel": config.channels}

    def score(keep: Masks, units: Sequence[Unit]) -> Scores:
        is_exact = np.array([scoring[LEVEL_OF.get(unit.kind, "block")] == "exact" for unit in units])
        exact, first_order = ([units[i] for i in np.flatnonzero(chosen)] for chosen in (is_exact, ~is_exact))
        scores = np.zeros(len(units))
        if exact:
            scores[is_exact] = scorer.exact(keep, exact)
        if first_order:
            scores[~is_exact] = _first_order(config, scorer)(keep, first_order)
        return scores

    return score
