"""What a comparison leaves: report.html for people, report.json and table.csv for programs."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.files import replacing, write_json
from mobile_video_jax.evaluate.compare import Row, compare_evaluations, most_unlike
from mobile_video_jax.evaluate.folder import EvaluatedRun, read_clip
from mobile_video_jax.evaluate.protocol import PAGE, REPORT, facts
from mobile_video_jax.metrics.clip_scores import ACCURACY
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
LEFT = (REPORT, PAGE, TABLE, EVALUATIONS)
SHOWN = 4  # clips of each kind
POINTS = 300  # of a training curve
COLUMNS = (
    *("metric", "run", "value", "low", "high", "n", "difference", "difference_low", "difference_high"),
    *("above_zero", "pairs", "differs", "better"),
)


def write_comparison(runs: Sequence[EvaluatedRun], out: Path) -> Row:
    """Compares runs with the first, writes report.html, report.json and table.csv, and returns the second's content.

    Raises UserError for what cannot be compared, before anything is written.
    """
    numbers = compare_evaluations(runs)
    page = _page(runs, numbers)
    write_json(out / REPORT, numbers)
    with replacing(out / TABLE) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(table_rows(numbers))
    write_report(out / PAGE, page)
    return numbers


def table_rows(numbers: Row) -> list[Row]:
    """A line for each metric and run: the score with its interval, and its difference from the first run's."""
    rows = []
    for metric in _metrics(numbers):
        for name, run in numbers["runs"].items():
            score = run["metrics"].get(metric, {})
            apart = numbers["differences"].get(metric, {}).get(name, {})
            rows.append(
                {"metric": metric, "run": name}
                | {key: score.get(key) for key in ("value", "low", "high", "n")}
                | {"difference": apart.get("difference"), "pairs": apart.get("n")}
                | {f"difference_{end}": apart.get(end) for end in ("low", "high")}
                | {key: apart.get(key) for key in ("above_zero", "differs", "better")}
            )
    return rows


def difference_table(numbers: Row) -> Table:
    """The paired differences for people, metric by metric."""
    lines = [_difference(metric, *item) for metric, rows in numbers["differences"].items() for item in rows.items()]
    return Table(["metric", "run", "difference", "95 % interval", "resamples above 0", "pairs"], lines)


def _metrics(numbers: Row) -> list[str]:
    return list(dict.fromkeys(metric for run in numbers["runs"].values() for metric in run["metrics"]))


def _page(runs: Sequence[EvaluatedRun], numbers: Row) -> Report:
    first, *others = runs
    title = " and ".join(run.name for run in others) + f" beside {first.name}"
    lead = f"Every run is compared with {first.name} on the clips that both were scored on."
    same = {key: value for key, value in first.protocol.items() if all(run.protocol.get(key) == value for run in runs)}
    seen = "Same clip" if first.stage == "vae" else "Same prompt and same noise"
    sections = [
        Section("Scores", "Means with 95 % intervals.", [_scores(numbers)]),
        _differences(numbers),
        Section("Clips", f"{seen}, run by run.", _galleries(runs)),
        Section("Training", "Steps of each run; held-out values use averaged weights.", _curves(runs)),
        Section("Settings", "What is not the same in all runs.", _settings(numbers)),
    ]
    shown = {"baseline": first.name, "stage": first.stage, **facts(same)}
    return Report(title, lead, shown, [section for section in sections if section.blocks])


def _scores(numbers: Row) -> Table:
    names = list(numbers["runs"])
    lines = []
    for metric in _metrics(numbers):
        scores = [numbers["runs"][name]["metrics"].get(metric) for name in names]
        lines.append([_shown(metric), *("–" if score is None else _with_interval(metric, score) for score in scores)])
    return Table(["metric", *names], lines)


def _differences(numbers: Row) -> Section:
    unit = "prompt" if numbers["stage"] == "vbench" else "clip"
    text = (
        f"Each run less {numbers['baseline']}, {unit} by {unit} (paired bootstrap). Better and worse are said only "
        "where the interval excludes 0 and the metric has a better side; of 20 such intervals one does by chance. Full "
        "dots in the plots are those whose interval excludes 0."
    )
    plots = [
        Intervals(_shown(metric), [_interval(*item) for item in rows.items()])
        for metric, rows in numbers["differences"].items()
    ]
    title = f"Differences from {numbers['baseline']}"
    return Section(title, text, [difference_table(numbers), *plots] if plots else [])


def _difference(metric: str, name: str, row: Row) -> list[Cell]:
    difference = _figure(metric, row["difference"], "+") + ("" if row["differs"] else " (not clear)")
    interval = f"{_figure(metric, row['low'])} to {_figure(metric, row['high'])}"
    return [_shown(metric), name, Marked(difference, row["better"]), interval, f"{row['above_zero']:.1%}", row["n"]]


def _interval(name: str, row: Row) -> Interval:
    return Interval(name, row["difference"], row["low"], row["high"], row["better"])


def _galleries(runs: Sequence[EvaluatedRun]) -> list[Block]:
    """The first clips, and those whose scores differ most, of the prompts and seeds that all runs drew."""
    common = [sample for sample in runs[0].samples if all(sample in run.samples for run in runs)]
    unlike = [sample for sample in most_unlike(runs, common) if sample not in common[:SHOWN]]
    shown = {"The first clips": common[:SHOWN], "The clips whose scores differ most": unlike[:SHOWN]}
    blocks: list[Block] = []
    for caption, samples in shown.items():
        rows, fps = [], 8.0
        for prompt, seed in samples:
            clips = []
            for run in runs:
                frames, fps = read_clip(run.samples[prompt, seed])
                clips.append(ClipView(frames, run.name))
            number = "clip" if runs[0].stage == "vae" else "seed"
            rows.append(GalleryRow(f"{prompt} ({number} {seed})", clips))
        if rows:
            blocks.append(Gallery(rows, caption, fps, columns=min(len(runs), 4)))
    return blocks


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


def _settings(numbers: Row) -> list[Block]:
    blocks: list[Block] = []
    for caption, key in (("evaluation", "settings"), ("training config", "config")):
        if table := numbers[key]:
            names = list(next(iter(table.values())))
            lines = [[key, *(_text(row[name]) for name in names)] for key, row in table.items()]
            blocks.append(Table([caption, *names], lines))
    return blocks


def _with_interval(metric: str, score: Row) -> str:
    value = _figure(metric, score["value"])
    if score["low"] is None:
        return value
    return f"{value} ({_figure(metric, score['low'])} to {_figure(metric, score['high'])})"


def _figure(metric: str, value: float, sign: str = "") -> str:
    return f"{value:{sign}.1%}" if metric.startswith(ACCURACY) else f"{value:{sign},.4g}"


def _shown(metric: str) -> str:
    return metric.replace("_", " ")


def _text(value: Any) -> str:
    return "–" if value is None else str(value)
