"""Searches for what to keep, against all possible models."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.dit import MODELS
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import BlockShape, DitConfig
from mobile_video_jax.prune.budget import fraction_limits, level_limits, target_limits
from mobile_video_jax.prune.costs import LinearCost, TabulatedCost, counted_costs
from mobile_video_jax.prune.joint import joint
from mobile_video_jax.prune.search import greedy
from mobile_video_jax.prune.space import SearchSpace
from mobile_video_jax.prune.surgery import pruned_config
from mobile_video_jax.prune.units import LEVELS, WIDTHS, Units, kept_shapes

KINDS = ("block", *WIDTHS)
TABLES = {"heads": ((1, 2), (1.0, 5.0)), "cross_heads": ((1, 2), (2.0, 2.5)), "ffn": ((2, 4), (3.0, 3.5))}
COSTS = {
    "parameters": LinearCost(10, 4, 6, 5, 2),
    "flops": LinearCost(3, 1, 9, 4, 3),
    "latency": TabulatedCost(rest=1.0, block=0.5, tables=TABLES),
}
SMALL = Units(DitConfig(depth=2, heads=2, ffn=4), 2)


def random_scores(units: Units, seed: int) -> dict:
    rng, keep = np.random.default_rng(seed), units.all()
    return {unit: float(rng.exponential()) for kind in KINDS for unit in units.kept(keep, kind)}


def scored(scores: dict):
    return lambda keep, units: np.array([scores[unit] for unit in units])


def removed_score(space: SearchSpace, scores: dict, keep) -> float:
    """The sum of removed units' scores; units of a removed block are not counted."""
    kept_units = {unit for kind in KINDS for unit in space.units.kept(keep, kind)}
    removed_units = set(scores) - kept_units
    return sum(scores[unit] for unit in removed_units if unit.kind == "block" or keep.block[unit.block])


def every_keep(space: SearchSpace):
    """All models of the space, from all subsets of units; those of a removed block stay as they are."""
    kinds = [kind for level in space.levels for kind in LEVELS[level]]
    units = [unit for kind in kinds for unit in space.units.kept(space.units.all(), kind)]
    for bits in itertools.product((False, True), repeat=len(units)):
        removed = list(itertools.compress(units, bits))
        removed_blocks = {unit.block for unit in removed if unit.kind == "block"}
        if any(unit.block in removed_blocks and unit.kind != "block" for unit in removed):
            continue
        keep = space.units.without(space.units.all(), removed)
        shapes = kept_shapes(keep, space.units.shapes)
        sizes = dict(zip(np.flatnonzero(keep.block).tolist(), shapes, strict=True))
        allowed = all(
            getattr(shape, kind) // space.units.step(kind) in space.counts(i, kind)
            for i, shape in sizes.items()
            for kind in WIDTHS
        )
        alike = len(set(shapes)) == 1 and shapes[0].heads == shapes[0].cross_heads if shapes else False
        if shapes and allowed and (alike or not space.uniform):
            yield keep


@pytest.fixture(scope="module", params=[True, False], ids=["uniform", "per_block"])
def enumerated(request) -> tuple:
    space = SearchSpace(SMALL, COSTS, ffn_multiple=2, uniform=request.param)
    return space, list(every_keep(space))


@pytest.mark.parametrize(
    ("seed", "fractions"),
    [
        (0, {"parameters": 0.8}),
        (1, {"parameters": 0.55}),
        (2, {"latency": 0.8}),
        (3, {"parameters": 0.7, "latency": 0.6}),
    ],
)
def test_the_integer_program_equals_brute_force(enumerated, seed, fractions):
    space, keeps = enumerated
    limits = fraction_limits(space, fractions)
    feasible = [keep for keep in keeps if not space.exceeded(keep, limits)]
    scores = random_scores(SMALL, seed)
    best = min(removed_score(space, scores, keep) for keep in feasible)
    masks = joint(space, limits, scores)
    assert not space.exceeded(masks, limits)
    assert removed_score(space, scores, masks) == pytest.approx(best)


@pytest.mark.parametrize("level", LEVELS)
def test_greedy_equals_brute_force_where_removals_cost_alike(level):
    costs = {"parameters": LinearCost(1, 0, 2, 2, 1)}
    space = SearchSpace(SMALL, costs, ffn_multiple=2, uniform=False, levels=(level,))
    keeps = list(every_keep(space))
    for seed, fraction in itertools.product(range(3), (0.95, 0.85)):
        limits, scores = fraction_limits(space, {"parameters": fraction}), random_scores(SMALL, seed)
        best = min(removed_score(space, scores, keep) for keep in keeps if not space.exceeded(keep, limits))
        masks = greedy(space, {level: limits}, scored(scores))
        assert not space.exceeded(masks, limits)
        assert removed_score(space, scores, masks) == pytest.approx(best)


def test_greedy_scores_again_with_what_is_left():
    """Block 0 matters only once block 1 is gone."""
    space = SearchSpace(Units(DitConfig(depth=3, heads=1, ffn=2), 2), COSTS, ffn_multiple=2, levels=("block",))
    scored_blocks = []

    def score(keep, units):
        scored_blocks.append(keep.block.tolist())
        scores = {0: 0.2 if keep.block[1] else 5.0, 1: 0.1, 2: 1.0}
        return np.array([scores[unit.block] for unit in units])

    limits = {"parameters": COSTS["parameters"].of(space.units.shapes[:1])}
    assert greedy(space, {"block": limits}, score).block.tolist() == [1, 0, 0]
    assert scored_blocks == [[1, 1, 1], [1, 0, 1]]
    once = greedy(space, {"block": limits}, score, rescore={"block": 0})
    assert once.block.tolist() == [0, 0, 1]


def test_levels_that_save_nothing_are_left_alone():
    space = SearchSpace(SMALL, {"latency": LinearCost(1.0, 0.0, 0.0, 0.0, 2.0)}, ffn_multiple=2, uniform=False)
    limits = fraction_limits(space, {"latency": 0.6})
    masks = greedy(space, {"head": limits, "channel": limits}, scored(random_scores(SMALL, 0)))
    assert not space.exceeded(masks, limits) and masks.heads.all() and masks.cross_heads.all()


def test_finer_levels_continue_where_a_level_falls_short():
    """Channels alone cannot save enough; heads and blocks then follow."""
    space = SearchSpace(SMALL, COSTS, ffn_multiple=4, uniform=False)
    scores = random_scores(SMALL, 0)
    limits = fraction_limits(space, {"parameters": 0.75})
    levels = {"block": {"parameters": 1e9}, "head": {"parameters": 1e9}, "channel": limits}
    masks = greedy(space, levels, scored(scores))
    assert not space.exceeded(masks, limits) and masks.block.all() and masks.ffn.all()


@pytest.fixture(scope="module")
def large() -> SearchSpace:
    """The paper's server model on 1,344 tokens and 77 of text."""
    shapes = ((1, 7, 12, 16, 128), (1,), (1, 77, 384), (1, 77))
    inputs = [jax.ShapeDtypeStruct(s, d) for s, d in zip(shapes, (*[jnp.float32] * 3, jnp.bool_), strict=True)]
    return SearchSpace(Units(MODELS["server"], 64), counted_costs(MODELS["server"], *inputs))


@pytest.mark.parametrize("names", [("parameters",), ("flops",), ("parameters", "flops")])
def test_the_papers_budget_leads_from_server_to_mobile(large, names):
    limits = {name: value for name, value in target_limits(large).items() if name in names}
    keep = greedy(large, level_limits(large, limits), lambda keep, units: np.zeros(len(units)))
    assert pruned_config(MODELS["server"], keep) == MODELS["mobile"]
    assert large.costs["parameters"].of(kept_shapes(keep, large.units.shapes)) == pytest.approx(0.9e9, rel=0.08)
    mobile = BlockShape(20, 20, 6144)
    assert kept_shapes(keep, large.units.shapes) == (mobile,) * 20
    assert limits == {name: large.costs[name].of([mobile] * 20) for name in names}


def test_levels_share_the_budget_as_the_papers_levels_do(large):
    cost, (server, *_) = large.costs["parameters"], large.units.shapes
    limits = {"parameters": cost.of([BlockShape(20, 20, 6144)] * 20)}
    after_blocks, after_heads, last = (level["parameters"] for level in level_limits(large, limits).values())
    assert after_blocks == pytest.approx(cost.of([server] * 20))
    assert after_heads == pytest.approx(cost.of([BlockShape(20, 20, 8192)] * 20))
    assert last == pytest.approx(limits["parameters"])


@pytest.mark.slow
def test_the_integer_program_solves_the_paper_sized_problem(large):
    """In seconds, and never worse than greedy by the sums that both go by."""
    limits, scores = {"parameters": target_limits(large)["parameters"]}, random_scores(large.units, 0)
    masks = joint(large, limits, scores)
    assert not large.exceeded(masks, limits)
    one_by_one = greedy(large, level_limits(large, limits), scored(scores))
    assert removed_score(large, scores, masks) <= removed_score(large, scores, one_by_one)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"parameters": 5}, "out of reach: choose 29 to 78, 0.372 to 1"),
        ({"parameters": 79}, "out of reach: choose 29 to 78"),
        ({"memory": 5}, "no cost is called 'memory': limit some of parameters, flops, latency"),
    ],
)
def test_budgets_out_of_reach_are_told_the_range(limits, message):
    space = SearchSpace(SMALL, COSTS, ffn_multiple=2)
    for search in (lambda: joint(space, limits, {}), lambda: greedy(space, {"block": limits}, scored({}))):
        with pytest.raises(UserError, match=message):
            search()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": ("blocks",)}, "use some of block, head, channel"),
        ({"ffn_multiple": 3}, "a multiple of the 2 channels"),
        ({"units": Units(DitConfig(blocks=((1, 1, 2), (2, 1, 2))), 2)}, "set uniform=False"),
    ],
)
def test_spaces_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        SearchSpace(**{"units": SMALL, "costs": COSTS, "ffn_multiple": 2, **changes})
