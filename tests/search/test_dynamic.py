"""The exact search equals brute force, keeps every limit, and says what the cheapest layout needs."""

import math

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.search.costs import METRICS, measured_table
from mobile_video_jax.search.dynamic import best_layout, cheapest, counts_first, pareto_front
from mobile_video_jax.search.space import Choice, Space, as_text, uniform_space
from tests.search.tables import brute_force, random_instance, random_table, rise_of

LIMITED = [("milliseconds",), ("memory",), ("flops",), ("milliseconds", "memory"), tuple(METRICS)]


def random_limits(rng, space, table, names):
    """Limits between the costs of the cheapest layout and twice these."""
    return {name: getattr(cheapest(space, table, name).costs, name) * rng.uniform(1, 2) for name in names}


@pytest.mark.parametrize("names", LIMITED)
@pytest.mark.parametrize("seed", range(3))
def test_the_search_equals_brute_force(names, seed):
    rng = np.random.default_rng(seed)
    resolutions = ((1,), (1, 2), (1, 2, 4))[seed]
    space, rises, table = random_instance(seed, depth=int(rng.integers(1, 5)), resolutions=resolutions)
    limits = random_limits(rng, space, table, names)
    least = brute_force(space, rises, table, limits)
    if math.isinf(least):
        with pytest.raises(UserError, match="no layout meets all limits at once"):
            best_layout(space, rises, table, limits)
    else:
        layout, rise, costs = best_layout(space, rises, table, limits)
        assert rise == pytest.approx(least) == rise_of(layout, rises)
        assert not table.exceeded(layout, limits) and costs == table.of(layout)


def test_ten_positions_equal_brute_force():
    rng = np.random.default_rng(0)
    space, rises, table = random_instance(7, depth=10, kinds=1, resolutions=(1, 2))
    limits = random_limits(rng, space, table, ("milliseconds", "memory"))
    assert best_layout(space, rises, table, limits).rise == pytest.approx(brute_force(space, rises, table, limits))


def test_positions_may_have_choices_of_their_own_at_one_resolution_each():
    space = Space(tuple(tuple(Choice(kind, level) for kind in "abc") for level in (1, 2, 4, 2, 1)))
    rng = np.random.default_rng(3)
    rises = [{choice: float(rng.normal()) for choice in here} for here in space.positions]
    table = random_table(rng, space)
    limits = random_limits(rng, space, table, ("milliseconds",))
    assert best_layout(space, rises, table, limits).rise == pytest.approx(brute_force(space, rises, table, limits))


@pytest.mark.parametrize("metric", METRICS)
def test_the_front_is_monotone_and_holds_the_best_of_every_budget(metric):
    space, rises, table = random_instance(11, depth=5)
    front = pareto_front(space, rises, table, metric)
    costs = [getattr(point.costs, metric) for point in front]
    assert costs == sorted(costs, reverse=True) and len(set(costs)) == len(costs) >= 3
    assert [point.rise for point in front] == sorted(point.rise for point in front)
    for point, cost in zip(front, costs, strict=True):
        assert best_layout(space, rises, table, {metric: cost}).layout == point.layout


def test_counts_first_is_within_the_budget_and_never_better():
    better = 0
    for seed in range(5):
        space, rises, table = random_instance(seed, depth=5)
        limits = random_limits(np.random.default_rng(seed), space, table, ("milliseconds",))
        first, best = counts_first(space, rises, table, limits), best_layout(space, rises, table, limits)
        assert not table.exceeded(first.layout, limits)
        assert first.rise >= best.rise - 1e-9
        better += first.rise > best.rise + 1e-9
    assert better > 0


def test_a_budget_below_the_cheapest_layout_is_refused_with_what_that_needs():
    space, rises, table = random_instance(5, depth=4)
    least = cheapest(space, table, "milliseconds").costs.milliseconds
    with pytest.raises(UserError, match=rf"no layout is within .* ms: the cheapest, kind.*, needs {least:,.6g}; raise"):
        best_layout(space, rises, table, {"milliseconds": 0.99 * least})


def test_a_table_measured_on_short_networks_gives_the_costs_of_long_ones():
    space, _, table = random_instance(9, depth=5, resolutions=(1, 2, 4))
    measured = measured_table(space, table.of, "test")
    rng = np.random.default_rng(1)
    for _ in range(20):
        layout = tuple(space.choices[i] for i in rng.integers(len(space.choices), size=5))
        np.testing.assert_allclose(measured.of(layout)[:-1], table.of(layout)[:-1])


def test_a_space_refuses_nothing_and_doubles_and_a_layout_that_does_not_fit():
    with pytest.raises(UserError, match="needs a position"):
        uniform_space(0, ["full"], [1])
    with pytest.raises(UserError, match="full/1 is listed twice"):
        uniform_space(2, ["full", "full"], [1])
    space = uniform_space(2, ["full", "ssa"], [1])
    with pytest.raises(UserError, match="a layout of 1 does not fit 2 positions"):
        space.check([Choice("full", 1)])
    with pytest.raises(UserError, match="position 1 cannot be full/2: use one of full/1, ssa/1"):
        space.check([Choice("full", 1), Choice("full", 2)])
    assert as_text([Choice("full", 1), Choice("ssa", 2), Choice("ssa", 2)]) == "full/1, ssa/2 x 2"
