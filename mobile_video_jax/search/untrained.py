"""A search without trained weights: by cost alone, as no loss can be compared before there is a network.

Of the layouts within a budget it chooses one that computes most, by counts first, then places (S2DiT, arXiv
2601.12719): of the orders of the same blocks the one whose ends keep more than its middle, as in S2DiT and SnapGen++
(arXiv 2601.08303).
"""

import dataclasses
from pathlib import Path

from mobile_video_jax.core.claim import claim
from mobile_video_jax.core.config import plain
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.search.candidates import CHOSEN, Candidate, Searched
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.search.cost_file import write_costs
from mobile_video_jax.search.costs import CostTable, Limits, check_limits
from mobile_video_jax.search.dynamic import Point, cheapest, check_feasible, counts_first, pareto_front
from mobile_video_jax.search.path_costs import Rises
from mobile_video_jax.search.random_layouts import same_cost_layouts
from mobile_video_jax.search.run import COSTS, SEARCH, claimed_table, cost_table, network_search, write_layout_file
from mobile_video_jax.search.space import Choice, Layout, Space
from mobile_video_jax.search.supernet import FULL_CHOICE

FULL, OWN = "full attention", "the config's own"  # names of compared layouts
ENDS = 0.01  # share by which computation of the first and the last block counts more than that of the middle
GRAIN = 50  # steps in which a block's computation is told apart: few different sums, so that few layouts are held


def search_untrained(
    config: SearchConfig, name: str, denoiser: Denoiser, out: Path, limits: Limits, costs: Path | None = None
) -> tuple[Searched, CostTable]:
    """Searches the layout of a transformer that is not trained, `name`, and writes it as a file for --values to `out`.

    Raises UserError for a budget below the cheapest layout, unequal blocks, a cost table of another network and a
    folder of another search.
    """
    own = denoiser.config.transformer.layout
    network = network_search(config, without_layout(denoiser))
    space = network.space(config)
    table = cost_table(network, space, costs)
    check_limits(limits)
    check_feasible(space, table, limits)
    claim(
        out, SEARCH, {"model": name, "limits": dict(limits), "config": plain(config)} | claimed_table(table), "search"
    )
    write_costs(table, out / COSTS)
    layouts = _layouts(config, space, table, limits)
    kept = tuple(Choice(kind, resolution) for kind, resolution in own)
    if kept and set(kept) <= set(table.choices):
        layouts = {OWN: kept} | layouts
    write_layout_file(network, layouts[CHOSEN], out)
    candidates = {name: Candidate(layout, table.of(layout)) for name, layout in layouts.items()}
    return Searched("dp", limits, candidates, front=_front(space, table, next(iter(limits)))), table


def _layouts(config: SearchConfig, space: Space, table: CostTable, limits: Limits) -> dict[str, Layout]:
    """The chosen layout, and those that it is compared with."""
    metric = next(iter(limits))
    chosen = counts_first(space, left_out(space, table), table, limits).layout
    floor = same_cost_layouts(space, table, chosen, metric, config.floor, seed=config.seed)
    return {
        FULL: (FULL_CHOICE,) * len(space.positions),
        CHOSEN: chosen,
        "cheapest": cheapest(space, table, metric).layout,
        **{f"random {i + 1}": layout for i, layout in enumerate(floor)},
    }


def _front(space: Space, table: CostTable, metric: str) -> tuple[Point, ...]:
    """The layouts that no other beats in computation and another cost; none where computation is the cost."""
    return () if metric == "flops" else tuple(pareto_front(space, left_out(space, table, ends=0.0), table, metric))


def without_layout(denoiser: Denoiser) -> Denoiser:
    """The denoiser with plain blocks of full attention, as many."""
    model = dataclasses.replace(denoiser.config.transformer, layout=(), new_stages=())
    return Denoiser(dataclasses.replace(denoiser.config, model=model), denoiser.sampling)


def left_out(space: Space, table: CostTable, ends: float = ENDS) -> Rises:
    """For each position the share of a block's FLOPs that a choice leaves out, a little more towards the ends."""
    most = max(table.choices[choice].flops for choice in space.choices)
    middle = (len(space.positions) - 1) / 2
    weights = [1 + ends * abs(i - middle) / max(middle, 1) for i in range(len(space.positions))]
    shares = {choice: round(GRAIN * (1 - table.choices[choice].flops / most)) / GRAIN for choice in space.choices}
    return [
        {choice: weight * shares[choice] for choice in choices}
        for weight, choices in zip(weights, space.positions, strict=True)
    ]
