"""An evaluation's report.json as parts of a page: the table of scores, and the protocol as facts."""

from collections.abc import Mapping
from typing import Any

from mobile_video_jax.metrics.by_stage import metric_of
from mobile_video_jax.report.blocks import Table


def score_table(report: Mapping[str, Any]) -> Table:
    """The metrics of a report with their intervals, and those of other clips beside them."""
    beside, metrics = report.get("beside", {}), report["metrics"]
    chance = any("chance" in score for score in metrics.values())
    rows, meanings = [], []
    for key, score in metrics.items():
        metric = metric_of(report["stage"], key)
        others = [metric.text(scores[key]["value"]) if key in scores else "–" for scores in beside.values()]
        guess = [metric.text(score.get("chance"))] if chance else []
        interval = metric.interval(score["low"], score["high"])
        rows.append([metric.title, metric.text(score["value"]), interval, score["n"], *others, *guess])
        if metric.meaning and f"{metric.name}: {metric.meaning}" not in meanings:
            meanings.append(f"{metric.name}: {metric.meaning}")
    names = [name.replace("_", " ") for name in beside]
    columns = ["metric", "value", "95 % interval", "n", *names, *(["chance"] if chance else [])]
    return Table(columns, rows, "; ".join(meanings))


def protocol_facts(protocol: Mapping[str, Any]) -> dict[str, str]:
    """A protocol as facts of a page."""
    facts: dict[str, str] = {}
    for key, value in protocol.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping):
            facts |= {f"{name}: {inner}": text for inner, text in protocol_facts(value).items()}
        elif value not in (None, "") and key != "notes":
            facts[name] = str(value)
    return facts
