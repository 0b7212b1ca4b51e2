"""Runs side by side: which is better on the same clips, and what else sets them apart."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.revision import git_revision
from mobile_video_jax.evaluate.folder import EvaluatedRun
from mobile_video_jax.metrics.clip_scores import ACCURACY
from mobile_video_jax.metrics.paired import compare
from mobile_video_jax.metrics.vbench import DIMENSIONS
from mobile_video_jax.models.run import Run
from mobile_video_jax.train.run import NAME

# Numbers from other clips are not compared at all; other settings, such as solver steps, are what is compared.
MUST_AGREE = ("data_digest", "split", "clip")
NOT_SETTINGS = ("run", "data", "config_digest", "notes", *MUST_AGREE)

# Of what is in neither, such as how much moves, more is no merit and no fault.
MORE_IS_BETTER = {"psnr", "first_frame_psnr", "ssim", *DIMENSIONS}
LESS_IS_BETTER = {"flicker", "lpips", "fvd", "kvd"}

Row = dict[str, Any]


def compare_evaluations(evaluations: Sequence[EvaluatedRun]) -> Row:
    """Every other run beside the first, as plain values: scores, paired differences and settings that differ.

    Raises UserError for runs of unlike stages, data, splits or prompts, and for runs without common clips.
    """
    if len(evaluations) < 2:
        raise UserError("name two runs or more: --runs A B")
    first, *others = evaluations
    for other in others:
        _check_comparable(first, other)
    found = {other.name: differences(first, other) for other in others}
    pairs = {metric: {name: rows[metric] for name, rows in found.items() if metric in rows} for metric in first.scores}
    return {
        "stage": first.stage,
        "baseline": first.name,
        "runs": {
            one.name: {"folder": str(one.folder), "metrics": one.metrics, "protocol": one.protocol}
            for one in evaluations
        },
        "differences": {metric: rows for metric, rows in pairs.items() if rows},
        "settings": _unlike({one.name: _settings(one) for one in evaluations}),
        "config": _unlike(configs(evaluations)),
        "commit": git_revision(),
    }


def differences(first: EvaluatedRun, second: EvaluatedRun) -> dict[str, Row]:
    """The second run less the first, by metric, on the clips that both have; `better` where the interval excludes 0.

    VBench's videos of one prompt count as one, as they are not independent. Metrics that fewer than two common clips
    have are left out, as are those of a whole set, such as FVD.
    """
    rows, units = _common(first, second), first.prompts if first.stage == "vbench" else first.clips
    found = {}
    for metric in [metric for metric in first.scores if metric in second.scores]:
        pairs: dict[str, list[tuple[float, float]]] = {}
        for i, j in rows:
            pair = first.scores[metric][i], second.scores[metric][j]
            if np.isfinite(pair).all():
                pairs.setdefault(units[i], []).append(pair)
        if len(pairs) > 1:
            means = np.array([np.mean(group, axis=0) for group in pairs.values()])
            found[metric] = _judged(metric, dataclasses.asdict(compare(means[:, 0], means[:, 1])))
    return found


def configs(evaluations: Sequence[EvaluatedRun]) -> dict[str, Row]:
    """The training configs of those runs whose directories are there, flat, by name."""
    there = [one for one in evaluations if (one.run / NAME).exists()]
    return {one.name: flatten_dict(Run.open(one.run).config, sep=".") for one in there}


def most_unlike(evaluations: Sequence[EvaluatedRun], samples: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """The samples, those first whose scores differ most from the first run's.

    A difference counts in units of the root mean square over the samples, summed over metrics and runs.
    """
    first, *others = evaluations
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
    here, there = _terms(first), _terms(second)
    for key in here.keys() & there.keys():
        if here[key] != there[key]:
            raise UserError(
                f"{both} were evaluated with {key} {here[key]} and {there[key]}: evaluate them with the same"
            )
    rows = _common(first, second)
    if not rows:
        raise UserError(f"{both} have no common clips: evaluate them on the same ones")
    if first.prompts and second.prompts:
        for i, j in rows:
            if first.prompts[i] != second.prompts[j]:
                raise UserError(
                    f"{both} drew clip {first.clips[i]} for other prompts, {first.prompts[i]!r} and "
                    f"{second.prompts[j]!r}: evaluate them on the same list"
                )


def _terms(one: EvaluatedRun) -> Row:
    """What the numbers of two runs must agree in where both name it: the clips, and how metrics are computed."""
    return {key: one.protocol[key] for key in MUST_AGREE if key in one.protocol} | one.protocol.get("metrics", {})


def _common(first: EvaluatedRun, second: EvaluatedRun) -> list[tuple[int, int]]:
    """Where each clip that both have stands in the one and in the other."""
    places = {clip: j for j, clip in enumerate(second.clips)}
    return [(i, places[clip]) for i, clip in enumerate(first.clips) if clip in places]


def _judged(metric: str, row: Row) -> Row:
    """Adds whether the interval excludes 0, and whether the second run is better: None where that is not known."""
    differs, better = row["low"] > 0 or row["high"] < 0, None
    if differs and (metric in MORE_IS_BETTER or metric.startswith(ACCURACY)):
        better = row["low"] > 0
    elif differs and metric in LESS_IS_BETTER:
        better = row["high"] < 0
    return row | {"differs": differs, "better": better}


def _settings(one: EvaluatedRun) -> Row:
    return flatten_dict({key: value for key, value in one.protocol.items() if key not in NOT_SETTINGS}, sep=".")


def _unlike(values: Mapping[str, Row]) -> dict[str, Row]:
    """The keys that not all have with one value, with the value of each; None where one lacks it."""
    keys = dict.fromkeys(key for row in values.values() for key in row)
    rows = {key: {name: row.get(key) for name, row in values.items()} for key in keys}
    return {key: row for key, row in rows.items() if any(value != next(iter(row.values())) for value in row.values())}
