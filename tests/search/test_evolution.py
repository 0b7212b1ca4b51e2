"""Evolution keeps the limits, repeats itself, resumes, and beats random search where the optimum is known."""

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.search.dynamic import best_layout, cheapest
from mobile_video_jax.search.evolution import EvolutionConfig, evolve, random_search, rank_correlation
from mobile_video_jax.search.random_layouts import Sampler, same_cost_layouts
from tests.search.tables import random_instance, rise_of

CONFIG = EvolutionConfig(population=12, generations=6, fidelities=(1, 4))


def instance(seed, depth=7):
    """A search, and the losses of its layouts: their summed rises, with noise that ends with the fidelity."""
    space, rises, table = random_instance(seed, depth)
    sampler = Sampler(space, table, {"milliseconds": 2.0 * cheapest(space, table, "milliseconds").costs.milliseconds})

    def loss(layout, fidelity):
        noise = np.random.default_rng([seed, *map(space.choices.index, layout)]).normal()
        return rise_of(layout, rises) + (noise if fidelity == 1 else 0.0)

    return sampler, rises, loss


def test_nothing_above_a_limit_is_evaluated_and_nothing_twice():
    sampler, _, loss = instance(0)
    calls = []
    evolve(sampler, lambda *call: calls.append(call) or loss(*call), CONFIG)
    assert all(sampler.feasible(layout) for layout, _ in calls)
    assert len(set(calls)) == len(calls) > 40


def test_one_seed_gives_one_outcome_and_another_seed_another():
    sampler, _, loss = instance(1)
    first, again, other = (evolve(sampler, loss, CONFIG, seed) for seed in (0, 0, 1))
    assert first == again and first.evaluations != other.evaluations


def test_evolution_beats_random_search_at_equal_evaluations_and_comes_near_the_optimum():
    gaps = []
    for seed in range(4):
        sampler, rises, loss = instance(seed)
        evolved = evolve(sampler, loss, CONFIG, seed)
        sizes = [len(evolved.at(fidelity)) for fidelity in CONFIG.fidelities]
        sampled = random_search(sampler, loss, sizes, CONFIG, seed)
        assert [len(sampled.at(fidelity)) for fidelity in CONFIG.fidelities] == sizes
        best = best_layout(sampler.space, rises, sampler.table, sampler.limits).rise
        gaps.append((evolved.best.loss - best, sampled.best.loss - best))
    evolved_gap, random_gap = np.mean(gaps, axis=0)
    assert 0 <= evolved_gap < 0.6 * random_gap


def test_the_only_layout_within_the_limits_is_returned():
    space, rises, table = random_instance(2, depth=4)
    only = cheapest(space, table, "milliseconds")
    small = EvolutionConfig(population=2, generations=2, fidelities=(0,))
    sampler = Sampler(space, table, {"milliseconds": only.costs.milliseconds})
    assert evolve(sampler, lambda layout, _: rise_of(layout, rises), small).best.layout == only.layout


def test_early_losses_rank_as_late_ones_where_noise_is_small():
    sampler, rises, _ = instance(3)
    outcome = evolve(sampler, lambda layout, _: rise_of(layout, rises), CONFIG)
    assert rank_correlation(outcome, CONFIG.fidelities)["1"] == pytest.approx(1)


def test_random_layouts_of_the_same_cost_are_different_and_cost_the_same():
    space, rises, table = random_instance(4, depth=6)
    limit = 1.5 * cheapest(space, table, "milliseconds").costs.milliseconds
    best = best_layout(space, rises, table, {"milliseconds": limit})
    layouts = same_cost_layouts(space, table, best.layout, "milliseconds", 3)
    costs = [table.of(layout).milliseconds for layout in layouts]
    assert len({best.layout, *layouts}) == 4
    np.testing.assert_allclose(costs, best.costs.milliseconds, rtol=0.0201)
    only = cheapest(space, table, "milliseconds").layout
    assert same_cost_layouts(space, table, only, "milliseconds", 3, tolerance=0.0) == []


def test_limits_below_the_cheapest_layout_are_refused():
    space, _, table = random_instance(5, depth=3)
    least = cheapest(space, table, "flops").costs.flops
    with pytest.raises(UserError, match="no random layout is within the limits on flops: raise them"):
        Sampler(space, table, {"flops": 0.9 * least}).sample(np.random.default_rng(0))
