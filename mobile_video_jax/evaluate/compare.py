"""Comparison of evaluated runs: paired differences on the same clips, and settings that are not the same."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.revision import git_revision
from mobile_video_jax.evaluate.evaluated_run import EvaluatedRun
from mobile_video_jax.evaluate.evaluation import plain_scores
from mobile_video_jax.metrics.metric import Metric
from mobile_video_jax.metrics.paired import Comparison, compare
from mobile_video_jax.models.run import Run
from mobile_video_jax.train.run import NAME

# Numbers from other clips are not compared at all; other settings, such as solver steps, are what is compared.
MUST_AGREE = ("data_digest", "split", "clip")
NOT_SETTINGS = ("run", "data", "config_digest", "notes", *MUST_AGREE)

Unlike = dict[str, dict[str, Any]]  # keys that not all runs have with one value: the value of each run by its name


@dataclasses.dataclass(frozen=True)
class RunComparison:
    """Runs beside the first of them.

    `differences` holds, by metric and by the name of the other run, that run less the first.
    """

    runs: Sequence[EvaluatedRun]
    differences: dict[Metric, dict[str, Comparison]]
    settings: Unlike
    config: Unlike

    @property
    def first(self) -> EvaluatedRun:
        """The run that the others are compared with."""
        return self.runs[0]

    @property
    def metrics(self) -> list[Metric]:
        """The metrics of all runs."""
        return list(dict.fromkeys(metric for run in self.runs for metric in run.metrics))

    def as_json(self) -> dict[str, Any]:
        """The content of report.json."""
        return {
            "stage": self.first.stage,
            "baseline": self.first.name,
            "runs": {
                run.name: {"folder": str(run.folder), "metrics": plain_scores(run.metrics), "protocol": run.protocol}
                for run in self.runs
            },
            "differences": {
                metric.key: {name: plain_difference(metric, one) for name, one in others.items()}
                for metric, others in self.differences.items()
            },
            "settings": self.settings,
            "config": self.config,
            "commit": git_revision(),
        }


def plain_difference(metric: Metric, difference: Comparison) -> dict[str, Any]:
    """A difference as JSON holds it, with its verdict: `better` is None where that is not known."""
    differs, better = difference.differs, verdict(metric, difference)
    return {**dataclasses.asdict(difference), "differs": differs, "better": better, "enough_pairs": difference.enough}


def verdict(metric: Metric, difference: Comparison) -> bool | None:
    """True where the second run is better; None where pairs are few, the interval holds 0, or neither way is better."""
    return metric.better(difference.low, difference.high) if difference.enough else None


def compare_evaluations(runs: Sequence[EvaluatedRun]) -> RunComparison:
    """Every other run beside the first.

    Raises UserError for runs of unlike stages, data, splits or prompts, and for runs without common clips.
    """
    if len(runs) < 2:
        raise UserError("name two runs or more: --runs A B")
    first, *others = runs
    for other in others:
        _check_comparable(first, other)
    by_run = {other.name: differences(first, other) for other in others}
    by_metric = {
        metric: {name: rows[metric] for name, rows in by_run.items() if metric in rows} for metric in first.scores
    }
    return RunComparison(
        runs=runs,
        differences={metric: rows for metric, rows in by_metric.items() if rows},
        settings=_unlike({run.name: _settings(run) for run in runs}),
        config=_unlike(_configs(runs)),
    )


def differences(first: EvaluatedRun, second: EvaluatedRun) -> dict[Metric, Comparison]:
    """The second run less the first, by metric, on the clips that both have.

    VBench's videos of one prompt count as one, as they are not independent. Metrics that fewer than two common clips
    have are left out, as are those of a whole set, such as FVD.
    """
    rows, units = _common(first, second), first.prompts if first.stage == "vbench" else first.clips
    compared = {}
    for metric in [metric for metric in first.scores if metric in second.scores]:
        pairs: dict[str, list[tuple[float, float]]] = {}
        for i, j in rows:
            pair = first.scores[metric][i], second.scores[metric][j]
            if np.isfinite(pair).all():
                pairs.setdefault(units[i], []).append(pair)
        if len(pairs) > 1:
            means = np.array([np.mean(group, axis=0) for group in pairs.values()])
            compared[metric] = compare(means[:, 0], means[:, 1])
    return compared


def most_unlike(runs: Sequence[EvaluatedRun], samples: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """The samples, those first whose scores differ most from the first run's.

    A difference counts in units of the root mean square over the samples, summed over metrics and runs.
    """
    first, *others = runs
    total = np.zeros(len(samples))
    for other, metric in itertools.product(others, first.scores):
        if metric in other.scores:
            apart = np.array([other.score(metric, sample) - first.score(metric, sample) for sample in samples])
            apart = np.nan_to_num(apart, posinf=0, neginf=0)
            total += np.abs(apart) / (np.linalg.norm(apart) or 1)
    return [samples[i] for i in np.argsort(-total, kind="stable")]


def _check_comparable(first: EvaluatedRun, second: EvaluatedRun) -> None:
    both = f"{first.name} and {second.name}"
    if first.stage != second.stage:
        raise UserError(f"{both} are of the stages {first.stage} and {second.stage}: compare runs of one stage")
    terms, others = _terms(first), _terms(second)
    for key in terms.keys() & others.keys():
        if terms[key] != others[key]:
            raise UserError(
                f"{both} were evaluated with {key} {terms[key]} and {others[key]}: evaluate them with the same"
            )
    rows = _common(first, second)
    if not rows:
        raise UserError(f"{both} have no common clips: evaluate them on the same ones")
    if first.prompts and second.prompts:
        for i, j in rows:
            if first.prompts[i] != second.prompts[j]:
                raise UserError(
                    f"{both} generated clip {first.clips[i]} for other prompts, {first.prompts[i]!r} and "
                    f"{second.prompts[j]!r}: evaluate them on the same list"
                )


def _terms(run: EvaluatedRun) -> dict[str, Any]:
    """The terms that two runs must agree in where both name them: the clips, and how metrics are computed."""
    terms = {key: run.protocol[key] for key in MUST_AGREE if key in run.protocol}
    return {**terms, **run.protocol.get("metrics", {})}


def _common(first: EvaluatedRun, second: EvaluatedRun) -> list[tuple[int, int]]:
    """The indices in both runs of each clip that both have."""
    indices = {clip: j for j, clip in enumerate(second.clips)}
    return [(i, indices[clip]) for i, clip in enumerate(first.clips) if clip in indices]


def _configs(runs: Sequence[EvaluatedRun]) -> dict[str, dict[str, Any]]:
    """The flat training configs of the runs whose directories are still there, by name."""
    present = [run for run in runs if (run.run / NAME).exists()]
    return {run.name: dict(flatten_dict(Run.open(run.run).config, sep=".")) for run in present}


def _settings(run: EvaluatedRun) -> dict[str, Any]:
    return dict(flatten_dict({key: value for key, value in run.protocol.items() if key not in NOT_SETTINGS}, sep="."))


def _unlike(values: Mapping[str, Mapping[str, Any]]) -> Unlike:
    """The keys that not all have with one value, with the value of each; None where one lacks it."""
    keys = dict.fromkeys(key for row in values.values() for key in row)
    rows = {key: {name: row.get(key) for name, row in values.items()} for key in keys}
    return {key: row for key, row in rows.items() if any(value != next(iter(row.values())) for value in row.values())}
