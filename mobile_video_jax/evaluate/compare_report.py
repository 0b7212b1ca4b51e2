"""Report of a comparison: report.html for people, report.json and table.csv for programs."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.files import replacing, write_json
from mobile_video_jax.evaluate.compare import RunComparison, Unlike, most_unlike, plain_difference, verdict
from mobile_video_jax.evaluate.evaluated_run import EvaluatedRun, read_clip
from mobile_video_jax.evaluate.evaluation import PAGE, REPORT
from mobile_video_jax.evaluate.score_table import protocol_facts
from mobile_video_jax.metrics.interval import FEW, RESAMPLED, Score
from mobile_video_jax.metrics.metric import Metric
from mobile_video_jax.metrics.paired import Comparison
from mobile_video_jax.report.blocks import (
    Block,
    Cell,
    ClipView,
    Curves,
    Gallery,
    GalleryRow,
    Interval,
    Intervals,
    Marked,
    Report,
    Section,
    Series,
    Table,
)
from mobile_video_jax.report.page import write_report
from mobile_video_jax.train.metrics import read_metrics

TABLE, EVALUATIONS = "table.csv", "evaluations"
OUTPUTS = (REPORT, PAGE, TABLE, EVALUATIONS)
SHOWN = 4  # clips of each kind
POINTS = 300  # of a training curve
COLUMNS = (
    *("metric", "run", "value", "low", "high", "n", "difference", "difference_low", "difference_high"),
    *("above_zero", "pairs", "differs", "better"),
)


def write_comparison(comparison: RunComparison, out: Path) -> dict[str, Any]:
    """Writes report.html, report.json and table.csv, and returns the second's content.

    Raises UserError for clips that do not decode, before anything is written.
    """
    page, numbers = _page(comparison), comparison.as_json()
    write_json(out / REPORT, numbers)
    with replacing(out / TABLE) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(table_rows(comparison))
    write_report(out / PAGE, page)
    return numbers


def table_rows(comparison: RunComparison) -> list[dict[str, Any]]:
    """A line for each metric and run: the score with its interval, and its difference from the first run's."""
    rows = []
    for metric in comparison.metrics:
        for run in comparison.runs:
            row = {"metric": metric.key, "run": run.name}
            if metric in run.metrics:
                row |= dataclasses.asdict(run.metrics[metric])
            if difference := comparison.differences.get(metric, {}).get(run.name):
                row |= _difference_columns(plain_difference(metric, difference))
            rows.append(row)
    return rows


def _difference_columns(plain: dict[str, Any]) -> dict[str, Any]:
    renamed = {"difference_low": plain["low"], "difference_high": plain["high"], "pairs": plain["n"]}
    return renamed | {key: plain[key] for key in ("difference", "above_zero", "differs", "better")}


def difference_table(comparison: RunComparison) -> Table:
    """The paired differences for people, metric by metric."""
    rows = [
        _difference_row(metric, name, difference)
        for metric, differences in comparison.differences.items()
        for name, difference in differences.items()
    ]
    return Table(["metric", "run", "difference", "95 % interval", "resamples above 0", "pairs"], rows)


def _difference_row(metric: Metric, name: str, difference: Comparison) -> list[Cell]:
    text = metric.text(difference.difference, "+")
    if not difference.differs:
        text += " (not clear)" if difference.enough else " (too few pairs)"
    interval = metric.interval(difference.low, difference.high)
    above = f"{difference.above_zero:.1%}"
    return [metric.title, name, Marked(text, verdict(metric, difference)), interval, above, difference.n]


def _page(comparison: RunComparison) -> Report:
    runs, first = comparison.runs, comparison.first
    title = " and ".join(run.name for run in runs[1:]) + f" beside {first.name}"
    lead = f"Every run is compared with {first.name} on the clips that both were scored on."
    same = {key: value for key, value in first.protocol.items() if all(run.protocol.get(key) == value for run in runs)}
    pairing = "Same clip" if first.stage == "vae" else "Same prompt and same noise"
    unlike = {"evaluation": comparison.settings, "training config": comparison.config}
    sections = [
        Section("Scores", "Means with 95 % intervals.", [_scores(comparison)]),
        _differences(comparison),
        Section("Clips", f"{pairing}, run by run.", _galleries(runs)),
        Section("Training", "Steps of each run; held-out values use averaged weights.", _curves(runs)),
        Section("Settings", "Keys that not all runs have with one value.", _settings(unlike)),
    ]
    facts = {"baseline": first.name, "stage": first.stage, **protocol_facts(same)}
    return Report(title, lead, facts, [section for section in sections if section.blocks])


def _scores(comparison: RunComparison) -> Table:
    rows = [
        [metric.title, *(_with_interval(metric, run.metrics.get(metric)) for run in comparison.runs)]
        for metric in comparison.metrics
    ]
    return Table(["metric", *(run.name for run in comparison.runs)], rows)


def _with_interval(metric: Metric, score: Score | None) -> str:
    if score is None:
        return metric.text(None)
    if score.low is None:
        return metric.text(score.value)
    return f"{metric.text(score.value)} ({metric.interval(score.low, score.high)})"


def _differences(comparison: RunComparison) -> Section:
    unit = "prompt" if comparison.first.stage == "vbench" else "clip"
    text = (
        f"Each run less {comparison.first.name}, {unit} by {unit}, with 95 % intervals: a paired "
        f"bootstrap, Student's t below {RESAMPLED} pairs. A run is called better or worse "
        "only where the interval excludes 0 and one way is better for the metric; of 20 such intervals one does by "
        "chance. Full dots in the plots are those whose interval excludes 0."
    )
    everything = [one for differences in comparison.differences.values() for one in differences.values()]
    if not all(difference.enough for difference in everything):
        text += (
            f" With fewer than {FEW} pairs no run is called better or worse: Student's t takes differences to be "
            "normally distributed, which so few cannot show."
        )
    plots = [
        Intervals(metric.title, [_interval(metric, *item) for item in differences.items()])
        for metric, differences in comparison.differences.items()
    ]
    title = f"Differences from {comparison.first.name}"
    return Section(title, text, [difference_table(comparison), *plots] if plots else [])


def _interval(metric: Metric, name: str, difference: Comparison) -> Interval:
    good = verdict(metric, difference)
    return Interval(name, difference.difference, difference.low, difference.high, good)


def _galleries(runs: Sequence[EvaluatedRun]) -> list[Block]:
    """The first clips, and those whose scores differ most, of the prompts and seeds that all runs have."""
    common = [sample for sample in runs[0].samples if all(sample in run.samples for run in runs)]
    unlike = [sample for sample in most_unlike(runs, common) if sample not in common[:SHOWN]]
    chosen = {"The first clips": common[:SHOWN], "The clips whose scores differ most": unlike[:SHOWN]}
    return [_gallery(runs, caption, samples) for caption, samples in chosen.items() if samples]


def _gallery(runs: Sequence[EvaluatedRun], caption: str, samples: Sequence[tuple[str, int]]) -> Gallery:
    number = "clip" if runs[0].stage == "vae" else "seed"
    rows, fps = [], 8.0
    for prompt, seed in samples:
        clips = []
        for run in runs:
            frames, fps = read_clip(run.samples[prompt, seed])
            clips.append(ClipView(frames, run.name))
        rows.append(GalleryRow(f"{prompt} ({number} {seed})", clips))
    return Gallery(rows, caption, fps, columns=min(len(runs), 4))


def _curves(runs: Sequence[EvaluatedRun]) -> list[Block]:
    blocks: list[Block] = []
    for title, key in (("training loss", "loss"), ("held-out loss", "eval_loss")):
        series: dict[str, Series] = {}
        for run in runs:
            lines = [line for line in read_metrics(run.run) if key in line]
            if lines:
                series[run.name] = _thinned([line["step"] for line in lines], [line[key] for line in lines])
        if series:
            blocks.append(Curves(title, series, log_y=all(np.min(y) > 0 for _, y in series.values())))
    return blocks


def _thinned(steps: Sequence[int], values: Sequence[float]) -> Series:
    """The means of POINTS groups of neighbours, where there are more points than can be seen."""
    groups = np.array_split(np.array([steps, values], np.float64), min(POINTS, len(steps)), axis=1)
    x, y = np.array([group.mean(axis=1) for group in groups]).T
    return x, y


def _settings(unlike: dict[str, Unlike]) -> list[Block]:
    blocks: list[Block] = []
    for caption, keys in unlike.items():
        if keys:
            names = list(next(iter(keys.values())))
            rows = [[key, *(_text(values[name]) for name in names)] for key, values in keys.items()]
            blocks.append(Table([caption, *names], rows))
    return blocks


def _text(value: Any) -> str:
    return "–" if value is None else str(value)
