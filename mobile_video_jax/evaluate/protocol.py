"""What every evaluation leaves: scores with all that decides them, to the byte the same for one run and command."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.core.revision import digest, git_revision, hardware
from mobile_video_jax.data.dataset import open_split
from mobile_video_jax.metrics.clip_scores import ACCURACY, PerClip
from mobile_video_jax.metrics.interval import Score
from mobile_video_jax.models.run import Run
from mobile_video_jax.report.blocks import Table, digits

REPORT, SCORES, CLAIM, PAGE = "report.json", "scores.json", "inputs.json", "report.html"
HELD_OUT = ("test", "validation")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores of a run on held-out clips.

    `metrics` are the run's, `beside` those of other clips for context; `per_clip` holds one value for each of `clips`,
    not finite where a clip has none; `more` are further figures of report.json and `notes` what was left out and why.
    """

    stage: str
    settings: dict[str, Any]
    clips: list[str]
    prompts: list[str]
    metrics: dict[str, Score]
    per_clip: PerClip
    beside: dict[str, dict[str, Score]] = dataclasses.field(default_factory=dict)
    chance: dict[str, float] = dataclasses.field(default_factory=dict)
    more: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def protocol(self) -> dict[str, Any]:
        """All that decides the numbers."""
        return {**self.settings, "notes": self.notes, "commit": git_revision(), "hardware": hardware()}


def check_held_out(split: str) -> None:
    """Raises UserError for clips that the run may have been trained on."""
    if split not in HELD_OUT:
        raise UserError(f"a run is judged on clips it has not seen: use the split {' or '.join(HELD_OUT)}")


def run_facts(run: Run) -> dict[str, Any]:
    """The settings that identify the evaluated model."""
    return {"step": run.step, "revision": run.record["revision"], "config_digest": digest(run.config)}


def data_facts(data: Path, split: str, count: int) -> dict[str, Any]:
    """The settings that tell which clips it is judged on, the first `count` of a split, or all if there are fewer.

    Raises UserError for a folder without such clips.
    """
    source, manifest = open_split(data, split)
    made_of = {key: manifest[key] for key in ("options", "contents", "files")}
    return {"data": str(data), "data_digest": digest(made_of), "split": split, "clips": min(count, len(source))}


def write_evaluation(out: Path, evaluation: Evaluation) -> dict[str, Any]:
    """Writes report.json and scores.json, and returns the content of the former."""
    metrics = _plain(evaluation.metrics)
    for name, value in evaluation.chance.items():
        metrics[name]["chance"] = value
    report = {"stage": evaluation.stage, "metrics": metrics, **evaluation.more}
    if evaluation.beside:
        report["beside"] = {name: _plain(scores) for name, scores in evaluation.beside.items()}
    report["protocol"] = evaluation.protocol
    scores = {name: [_or_null(value) for value in values] for name, values in evaluation.per_clip.items()}
    write_json(out / SCORES, {"clips": evaluation.clips, "scores": scores, "prompts": evaluation.prompts})
    write_json(out / REPORT, report)
    return report


def score_table(report: Mapping[str, Any]) -> Table:
    """The metrics of a report with their intervals, and those of other clips beside them."""
    beside, metrics = report.get("beside", {}), report["metrics"]
    chance = any("chance" in score for score in metrics.values())
    rows = []
    for name, score in metrics.items():
        others = [_cell(name, scores[name]["value"]) if name in scores else "–" for scores in beside.values()]
        interval = f"{digits(_cell(name, score['low']))} to {digits(_cell(name, score['high']))}"
        guess = [_cell(name, score["chance"]) if "chance" in score else "–"] if chance else []
        rows.append([_shown(name), _cell(name, score["value"]), interval, score["n"], *others, *guess])
    names = [name.replace("_", " ") for name in beside]
    return Table(["metric", "value", "95 % interval", "n", *names, *(["chance"] if chance else [])], rows)


def facts(protocol: Mapping[str, Any]) -> dict[str, str]:
    """A protocol as facts of a page."""
    found: dict[str, str] = {}
    for name, value in protocol.items():
        if isinstance(value, Mapping):
            found |= {f"{_shown(name)}: {key}": text for key, text in facts(value).items()}
        elif value not in (None, "") and name != "notes":
            found[_shown(name)] = str(value)
    return found


def _cell(name: str, value: float) -> str | float:
    return f"{value:.1%}" if name.startswith(ACCURACY) else value


def _shown(name: str) -> str:
    return name.replace("_", " ")


def _plain(scores: Mapping[str, Score]) -> dict[str, dict[str, Any]]:
    return {name: dataclasses.asdict(score) for name, score in scores.items()}


def _or_null(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
