"""The report of a search: report.html, report.json and the plot of the Pareto front."""

from collections.abc import Iterable
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
from mobile_video_jax.search.evolution import EvolutionConfig, Outcome, rank_correlation
from mobile_video_jax.search.space import as_text

PAGE, NUMBERS, FRONT = "report.html", "report.json", "front.png"


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
        "front": [{"rise": point.rise, **_costs(point.costs), "layout": point.layout} for point in searched.front],
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
    return {"layout": candidate.layout, **_costs(candidate.costs), "rise": _interval(candidate.rise)}


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
    lead = (
        "Each block of a trained transformer may be another kind of attention at another resolution, a divisor of the "
        "token grid's height and width. Losses are of distilled variants in place, before any training of the whole."
    )
    sections = [
        Section("Layouts", "", [_layouts(searched)]),
        Section("Front", "", [Picture("Rise of the held-out loss by cost", out / FRONT)]),
        *_importance(searched),
        *_evolution(searched, numbers),
        Section("Costs", "What a block adds to one call, and what a change of resolution adds.", [_costs_of(table)]),
    ]
    return Report("Layout search", lead, facts, sections)


def _layouts(searched: Searched) -> Table:
    rows: list[list[Cell]] = []
    for name, candidate in searched.candidates.items():
        rise, costs = candidate.rise, candidate.costs
        interval = f"{rise.difference:+.4f} ({rise.low:+.4f} to {rise.high:+.4f})"
        sizes = [costs.milliseconds, costs.memory / 1e6, costs.flops / 1e9, costs.parameters / 1e6]
        rows.append([name, interval, *(float(x) for x in sizes), as_text(candidate.layout)])
    columns = ["layout", "rise of the loss", "ms", "memory, MB", "GFLOPs", "parameters, M", "blocks"]
    caption = "Rises over the trained network's held-out loss, with 95 % intervals over the same clips."
    return Table(columns, rows, caption, highlight=[list(searched.candidates).index(CHOSEN)])


def _importance(searched: Searched) -> list[Section]:
    if not (scores := searched.importance):
        return []
    choices = list(scores.rises[0])
    rows: list[list[Cell]] = [
        [f"{i}", *(f"{here[choice].difference:+.4f}" for choice in choices)] for i, here in enumerate(scores.rises)
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
    """The front of summed rises, and the measured rises of the compared layouts."""
    metric = searched.metric
    figure, [axes] = panels(1, width=7)
    if searched.front:
        x, y = zip(*((getattr(point.costs, metric), point.rise) for point in searched.front), strict=True)
        axes.plot(x, y, marker=".", label="front, summed rises")
    for label, marker, candidates in _groups(searched):
        values = [(getattr(c.costs, metric), c.rise.difference, c.rise.low, c.rise.high) for c in candidates]
        cost, rise, low, high = np.array(values).T
        axes.errorbar(cost, rise, np.stack([rise - low, high - rise]), fmt=marker, capsize=3, label=label)
    axes.axvline(searched.limits[metric], color="gray", linestyle=":", label="budget")
    axes.set(xlabel=f"{metric} of one call" + (", ms" if metric == "milliseconds" else ""), ylabel="rise of the loss")
    axes.legend(frameon=False)
    save_figure(figure, path)


def _groups(searched: Searched) -> Iterable[tuple[str, str, list[Candidate]]]:
    """The compared layouts under the names of the legend: random ones of the same cost together."""
    floor = {name: c for name, c in searched.candidates.items() if name.removeprefix("random ").isdigit()}
    for name, candidate in searched.candidates.items():
        if name not in floor:
            yield name, "o", [candidate]
    if floor:
        yield "random, same cost", "x", list(floor.values())
