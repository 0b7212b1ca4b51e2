"""Searches over all levels at once, against all possible models."""

import itertools

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.prune.budget import fraction_limits, level_limits
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.prune.costs import LinearCost
from mobile_video_jax.prune.cross_level import Losses, cross_level
from mobile_video_jax.prune.pairs import pairs
from mobile_video_jax.prune.search import greedy
from mobile_video_jax.prune.space import SearchSpace
from mobile_video_jax.prune.units import Units
from tests.prune.test_search import COSTS, SMALL, every_keep, random_scores, removed_score, scored

ALIKE = {"parameters": LinearCost(1, 0, 2, 2, 1)}  # a head costs as much as a group of two channels
LEVELS = ("block", "head", "channel")


def losses_of(loss) -> Losses:
    return lambda keeps: np.array([loss(keep) for keep in keeps])


def test_units_of_different_levels_that_cost_alike_go_as_brute_force_says():
    space = SearchSpace(SMALL, ALIKE, ffn_multiple=2, uniform=False, levels=("head", "channel"))
    keeps = list(every_keep(space))
    for seed, fraction in enumerate((0.9, 0.75, 0.6)):
        limits, scores = fraction_limits(space, {"parameters": fraction}), random_scores(SMALL, seed)
        loss = lambda keep, scores=scores: removed_score(space, scores, keep)
        best = min(loss(keep) for keep in keeps if not space.exceeded(keep, limits))
        masks = cross_level(space, limits, losses_of(loss), scored(scores), at_once=2)
        assert not space.exceeded(masks, limits) and loss(masks) == pytest.approx(best)


def attention_matters(keep: Masks) -> float:
    """A loss by what is gone: of blocks and attention much, and more than their sum; of the FFN little."""
    blocks, heads, channels = (1 - np.mean(keep.block), 1 - np.mean(keep.heads), 1 - np.mean(keep.ffn))
    return float(8 * blocks + 6 * heads + 6 * blocks * heads + 0.2 * channels**2)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return SearchSpace(Units(DitConfig(depth=4, heads=4, ffn=16), 2), COSTS, ffn_multiple=2)


@pytest.mark.parametrize("fraction", [0.85, 0.7])
def test_the_ffn_goes_and_attention_stays_where_the_loss_says_so(space, fraction):
    """A search level by level cannot: it gives each level its share of any budget."""
    limits, loss = fraction_limits(space, {"parameters": fraction}), losses_of(attention_matters)
    scores = random_scores(space.units, 0)
    across = cross_level(space, limits, loss, scored(scores))
    measured = pairs(space, limits, loss, scores)
    by_level = greedy(space, level_limits(space, limits), scored(scores))
    for keep in (across, measured):
        assert keep.block.all() and keep.heads.all() and not keep.ffn.all() and not space.exceeded(keep, limits)
        assert attention_matters(keep) < 0.1 * attention_matters(by_level)


@pytest.mark.parametrize("fraction", [0.8, 0.5, 0.3])
@pytest.mark.parametrize("levels", [LEVELS, ("block", "channel"), ("head",)])
def test_pairs_find_the_least_loss_of_all_uniform_models_where_three_levels_do_not_interact(fraction, levels):
    """Against every number of blocks, heads and channels; all units of a level are alike."""
    space = SearchSpace(Units(DitConfig(depth=4, heads=4, ffn=8), 2), COSTS, ffn_multiple=2, levels=levels)
    limits = {"parameters": max(fraction * 100, 1.02 * min(map(COSTS["parameters"].of, space.smallest())))}
    masks = pairs(space, limits, losses_of(attention_matters), random_scores(space.units, 1))
    keeps = [keep for keep in every_size(space) if not space.exceeded(keep, limits)]
    assert not space.exceeded(masks, limits)
    assert attention_matters(masks) == pytest.approx(min(map(attention_matters, keeps)))


def every_size(space: SearchSpace):
    """One model of each number of blocks, heads and channels."""
    full = space.units.all()
    blocks = range(1, 5) if "block" in space.levels else [4]
    for depth, heads, channels in itertools.product(blocks, space.counts(0, "heads"), space.counts(0, "ffn")):
        first = lambda mask, count: (np.arange(mask.shape[-1]) < count).astype(np.float32) * np.ones_like(mask)
        keep = Masks(
            first(full.block, depth), *(first(mask, heads) for mask in full[1:3]), first(full.ffn, 2 * channels)
        )
        yield keep


def test_an_interaction_is_measured_again_before_it_is_chosen(space):
    """Channels cost nothing until a head is gone, then much."""

    def loss(keep: Masks) -> float:
        heads, channels = 1 - np.mean(keep.heads), 1 - np.mean(keep.ffn)
        return float(0.1 * heads + 100 * heads * channels + 0.2 * channels + 9 * (1 - np.mean(keep.block)))

    limits = fraction_limits(space, {"parameters": 0.8})
    masks = cross_level(space, limits, losses_of(loss), scored(random_scores(space.units, 0)))
    assert masks.ffn.all() or masks.heads.all()


@pytest.mark.parametrize("search", [cross_level, pairs])
def test_a_budget_out_of_reach_is_told_the_least(search, space):
    scores = random_scores(space.units, 0)
    last = scored(scores) if search is cross_level else scores
    with pytest.raises(UserError, match="out of reach: choose 29 to"):
        search(space, {"parameters": 5}, losses_of(attention_matters), last)


def test_pairs_need_uniform_widths():
    with pytest.raises(UserError, match="use uniform=True or search=cross_level"):
        PruneConfig(search="pairs", uniform=False)


def test_limits_that_no_model_meets_at_once_are_told_what_can_be_reached():
    """One block has few parameters, the other few FLOPs."""
    costs = {"parameters": LinearCost(0, 0, 8, 8, 1), "flops": LinearCost(0, 0, 1, 1, 8)}
    units = Units(DitConfig(blocks=((1, 1, 8), (3, 3, 2))), 2)
    space = SearchSpace(units, costs, heads_multiple=3, ffn_multiple=8, uniform=False)
    limits, scores = {"parameters": 24, "flops": 22}, scored(random_scores(units, 0))
    for search in (
        lambda: cross_level(space, limits, losses_of(lambda keep: 0.0), scores),
        lambda: greedy(space, dict.fromkeys(LEVELS, limits), scores),
    ):
        with pytest.raises(UserError, match=r"no model meets all limits at once: raise (parameters to 50|flops to 66)"):
            search()
