"""Results of an evaluation, with everything that decides them: to the byte the same for one run and command."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.core.revision import digest, git_revision, hardware
from mobile_video_jax.data.dataset import open_split
from mobile_video_jax.data.video.write import write_mp4
from mobile_video_jax.generate.clips import FRAME_RATE
from mobile_video_jax.generate.folder import SUMMARY
from mobile_video_jax.generate.prompts import Request, file_names
from mobile_video_jax.metrics.clip_scores import PerClip
from mobile_video_jax.metrics.interval import Score
from mobile_video_jax.metrics.metric import Metric
from mobile_video_jax.models.run import Run

REPORT, SCORES, CLAIM, PAGE, CLIPS = "report.json", "scores.json", "inputs.json", "report.html", "clips"
FEATURES = "features"  # folder of I3D's outputs
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
    metrics: Mapping[Metric, Score]
    per_clip: PerClip
    beside: Mapping[str, Mapping[Metric, Score]] = dataclasses.field(default_factory=dict)
    chance: Mapping[Metric, float] = dataclasses.field(default_factory=dict)
    more: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def protocol(self) -> dict[str, Any]:
        """Everything that decides the numbers."""
        return {**self.settings, "notes": self.notes, "commit": git_revision(), "hardware": hardware()}


def check_held_out(split: str) -> None:
    """Raises UserError for clips that the run may have been trained on."""
    if split not in HELD_OUT:
        raise UserError(f"a run is evaluated on clips it was not trained on: use the split {' or '.join(HELD_OUT)}")


def run_facts(run: Run) -> dict[str, Any]:
    """The settings that identify the evaluated model."""
    return {"step": run.step, "revision": run.record["revision"], "config_digest": digest(run.config)}


def data_facts(data: Path, split: str, count: int) -> dict[str, Any]:
    """The settings that identify the clips: the first `count` of a split, or all if there are fewer.

    Raises UserError for a folder without such clips.
    """
    source, manifest = open_split(data, split)
    contents = {key: manifest[key] for key in ("options", "contents", "files")}
    return {"data": str(data), "data_digest": digest(contents), "split": split, "clips": min(count, len(source))}


def write_evaluation(out: Path, evaluation: Evaluation) -> dict[str, Any]:
    """Writes report.json and scores.json, and returns the content of the former."""
    metrics = plain_scores(evaluation.metrics)
    for metric, value in evaluation.chance.items():
        metrics[metric.key]["chance"] = value
    report = {"stage": evaluation.stage, "metrics": metrics, **evaluation.more}
    if evaluation.beside:
        report["beside"] = {name: plain_scores(scores) for name, scores in evaluation.beside.items()}
    report["protocol"] = evaluation.protocol
    scores = {metric.key: [_or_null(value) for value in values] for metric, values in evaluation.per_clip.items()}
    write_json(out / SCORES, {"clips": evaluation.clips, "scores": scores, "prompts": evaluation.prompts})
    write_json(out / REPORT, report)
    return report


def write_clips(folder: Path, prompts: Sequence[str], clips: Clips, frame_rate: float = FRAME_RATE) -> list[str]:
    """Writes an evaluation's clips as generate_folder does, clip i under the seed i, and returns the files' names."""
    requests = [Request(prompt, i) for i, prompt in enumerate(prompts)]
    names = [f"{name}.mp4" for name in file_names(requests)]
    for name, frames in zip(names, clips, strict=True):
        write_mp4(folder / CLIPS / name, frames, frame_rate)
    pairs = zip(names, requests, strict=True)
    entries = [{"file": name, "prompt": request.prompt, "seed": request.seed} for name, request in pairs]
    write_json(folder / CLIPS / SUMMARY, {"clips": entries})
    return names


def plain_scores(scores: Mapping[Metric, Score]) -> dict[str, dict[str, Any]]:
    """Scores as JSON holds them."""
    return {metric.key: dataclasses.asdict(score) for metric, score in scores.items()}


def _or_null(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
