"""The report of a search: report.html, report.json and the plot of the Pareto front."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.files import write_json
from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.metrics.paired import Comparison
from mobile_video_jax.report.blocks import Cell, Interval, Intervals, Picture, Report, Section, Table
from mobile_video_jax.report.figures import panels, save_figure
from mobile_video_jax.report.page import write_report
from mobile_video_jax.search.candidates import CHOSEN, Candidate, Searched
from mobile_video_jax.search.costs import METRICS, Costs, CostTable
from mobile_video_jax.search.dynamic import Point
from mobile_video_jax.search.evolution import EvolutionConfig, Outcome, rank_correlation
from mobile_video_jax.search.space import as_text

PAGE, NUMBERS, FRONT = "report.html", "report.json", "front.png"
LEAD = (
    "Each place of a network may have another kind of layer, at a resolution that is a divisor of the grid's height "
    "and width. "
)
BY_LOSS = "Losses are of a trained network with shared layers in place, before any training of the whole."
BY_COST = (
    "Nothing is trained, so no quality was measured: the layout is chosen by cost alone, as the one that computes most "
    "within the budget. Search on a trained run (--model=RUN) to choose by the held-out loss."
)


def write_search_report(
    searched: Searched, table: CostTable, config: EvolutionConfig, whole: Costs, out: Path, seconds: float
) -> dict[str, Any]:
    """Writes the report; returns the values of report.json. `whole` are the chosen layout's costs, traced as one."""
    numbers = _numbers(searched, config) | {
        "whole": _costs(whole),
        "seconds": seconds,
        "commit": git_revision(),
        "hardware": hardware(),
    }
    write_json(out / NUMBERS, numbers)
    _front_plot(searched, out / FRONT)
    write_report(out / PAGE, _page(searched, table, numbers, out))
    return numbers


def _numbers(searched: Searched, config: EvolutionConfig) -> dict[str, Any]:
    """Every figure as plain values."""
    numbers: dict[str, Any] = {
        "method": searched.method,
        "limits": dict(searched.limits),
        "candidates": {name: _candidate(candidate) for name, candidate in searched.candidates.items()},
        "by": "losses" if searched.by_loss else "cost alone",
        "front": [
            ({"rise": point.rise} if searched.by_loss else {}) | _costs(point.costs) | {"layout": point.layout}
            for point in searched.front
        ],
        "rank_correlation": {
            name: rank_correlation(outcome, config.fidelities) for name, outcome in searched.outcomes.items()
        },
        "evaluations": {name: _evaluations(outcome) for name, outcome in searched.outcomes.items()},
    }
    if scores := searched.importance:
        numbers["trained_loss"] = scores.trained.value
        numbers["importance"] = [
            {str(choice): _interval(rise) for choice, rise in here.items()} for here in scores.rises
        ]
    return numbers


def _evaluations(outcome: Outcome) -> list[dict[str, Any]]:
    return [{"layout": as_text(layout), "steps": at, "loss": loss} for layout, at, loss in outcome.evaluations]


def _candidate(candidate: Candidate) -> dict[str, Any]:
    rise = {"rise": _interval(candidate.rise)} if candidate.rise else {}
    return {"layout": candidate.layout} | _costs(candidate.costs) | rise


def _costs(costs: Costs) -> dict[str, float]:
    return {name: getattr(costs, name) for name in METRICS}


def _interval(rise: Comparison) -> dict[str, float]:
    return {"value": rise.difference, "low": rise.low, "high": rise.high}


def _page(searched: Searched, table: CostTable, numbers: dict[str, Any], out: Path) -> Report:
    chosen = searched.candidates[CHOSEN]
    whole = numbers["whole"]["milliseconds"]
    facts = {
        "method": searched.method,
        "budget": ", ".join(f"{limit:,.4g} {METRICS[name]}" for name, limit in searched.limits.items()),
        "chosen": as_text(chosen.layout),
        "one call": f"{chosen.costs.milliseconds:,.4g} ms by the table, {whole:,.4g} ms traced as a whole network",
        "milliseconds": table.source,
        "hardware": numbers["hardware"],
        "commit": numbers["commit"],
    }
    sections = [
        Section("Layouts", "", [_layouts(searched)]),
        Section("Front", "", [Picture(f"{_quality(searched)[0].capitalize()} by cost", out / FRONT)]),
        *_importance(searched),
        *_evolution(searched, numbers),
        Section("Costs", "What a block adds to one call, and what a change of resolution adds.", [_costs_of(table)]),
    ]
    return Report("Layout search", LEAD + (BY_LOSS if searched.by_loss else BY_COST), facts, sections)


def _layouts(searched: Searched) -> Table:
    rows: list[list[Cell]] = []
    for name, candidate in searched.candidates.items():
        rise, costs = candidate.rise, candidate.costs
        interval = [f"{rise.difference:+.4f} ({rise.low:+.4f} to {rise.high:+.4f})"] if rise else []
        sizes = [costs.milliseconds, costs.memory / 1e6, costs.flops / 1e9, costs.parameters / 1e6]
        rows.append([name, *interval, *(float(x) for x in sizes), as_text(candidate.layout)])
    columns = ["ms", "memory, MB", "GFLOPs", "parameters, M", "blocks"]
    caption = "Of one call for one clip."
    if searched.by_loss:
        columns = ["rise of the loss", *columns]
        caption += " Rises over the trained network's held-out loss, with 95 % intervals over the same clips."
    return Table(["layout", *columns], rows, caption, highlight=[list(searched.candidates).index(CHOSEN)])


def _importance(searched: Searched) -> list[Section]:
    if not (scores := searched.importance):
        return []
    choices = list(dict.fromkeys(choice for here in scores.rises for choice in here))
    rows: list[list[Cell]] = [
        [f"{i}", *(f"{here[choice].difference:+.4f}" if choice in here else "" for choice in choices)]
        for i, here in enumerate(scores.rises)
    ]
    rises = [
        Interval(f"block {i} as {choice}", rise.difference, rise.low, rise.high)
        for i, here in enumerate(scores.rises)
        for choice, rise in here.items()
    ]
    text = f"Rise of the held-out loss, {scores.trained.value:.4f} as trained, when one block alone becomes another."
    return [
        Section("Importance", text, [Table(["block", *map(str, choices)], rows), Intervals("95 % intervals", rises)])
    ]


def _evolution(searched: Searched, numbers: dict[str, Any]) -> list[Section]:
    rows: list[list[Cell]] = []
    for name, outcome in searched.outcomes.items():
        correlation = numbers["rank_correlation"][name]
        text = ", ".join(f"{value:.2f} after {steps} steps" for steps, value in correlation.items()) or "–"
        rows.append([name, len(outcome.evaluations), f"{outcome.best.loss:.4f}", text, as_text(outcome.best.layout)])
    columns = ["method", "evaluations", "least loss", "rank correlation with the last fidelity", "blocks"]
    return [Section("Searches", "", [Table(columns, rows)])] if rows else []


def _costs_of(table: CostTable) -> Table:
    parts = [("the rest", table.rest), *((str(choice), costs) for choice, costs in table.choices.items())]
    parts += [(f"from {before} to {after}", costs) for (before, after), costs in table.moves.items()]
    rows: list[list[Cell]] = [
        [name, costs.milliseconds, costs.flops / 1e9, costs.parameters / 1e6, costs.peak_bytes / 1e6]
        for name, costs in parts
    ]
    return Table(["part", "ms", "GFLOPs", "parameters, M", "largest op, MB"], rows, f"Milliseconds: {table.source}.")


def _front_plot(searched: Searched, path: Path) -> None:
    """The front of summed rises and the measured rises of the compared layouts, or without losses the FLOPs of both."""
    metric, (label, quality) = searched.metric, _quality(searched)
    figure, [axes] = panels(1, width=7)
    if searched.front:
        x, y = zip(*((getattr(point.costs, metric), quality(point)[0]) for point in searched.front), strict=True)
        axes.plot(x, y, marker=".", label="front, summed rises" if searched.by_loss else "front")
    for name, marker, candidates in _groups(searched):
        values = [(getattr(candidate.costs, metric), *quality(candidate)) for candidate in candidates]
        cost, value, low, high = np.array(values).T
        axes.errorbar(cost, value, np.stack([value - low, high - value]), fmt=marker, capsize=3, label=name)
    axes.axvline(searched.limits[metric], color="gray", linestyle=":", label="budget")
    axes.set(xlabel=f"{metric} of one call" + (", ms" if metric == "milliseconds" else ""), ylabel=label)
    axes.legend(frameon=False)
    save_figure(figure, path)


def _quality(searched: Searched) -> tuple[str, Callable[[Candidate | Point], tuple[float, float, float]]]:
    """What layouts are compared by: its name, and of a layout the value with the ends of its interval."""

    if not searched.by_loss:
        return "GFLOPs of one call", lambda layout: (layout.costs.flops / 1e9,) * 3

    def rise(layout: Candidate | Point) -> tuple[float, float, float]:
        value = layout.rise
        if isinstance(value, Comparison):
            return value.difference, value.low, value.high
        return (value or 0.0,) * 3

    return "rise of the loss", rise


def _groups(searched: Searched) -> Iterable[tuple[str, str, list[Candidate]]]:
    """The compared layouts under the names of the legend: random ones of the same cost together."""
    floor = {name: c for name, c in searched.candidates.items() if name.removeprefix("random ").isdigit()}
    for name, candidate in searched.candidates.items():
        if name not in floor:
            yield name, "o", [candidate]
    if floor:
        yield "random, same cost", "x", list(floor.values())
