"""An evaluation read back from its folder: scores, their protocol, and the clips if any were generated."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json
from mobile_video_jax.data.video.container import UnreadableVideo
from mobile_video_jax.data.video.decode import decode
from mobile_video_jax.data.video.probe import probe
from mobile_video_jax.evaluate.evaluation import CLIPS, REPORT, SCORES
from mobile_video_jax.generate.folder import SUMMARY
from mobile_video_jax.metrics.by_stage import metric_of
from mobile_video_jax.metrics.interval import Score
from mobile_video_jax.metrics.metric import Metric


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """An evaluated run under the name it is shown by.

    `scores` holds one value a clip [n], not a number where a clip has none; `prompts` one text a clip, if any;
    `samples` the file of each generated clip by its prompt and seed.
    """

    name: str
    folder: Path
    stage: str
    metrics: dict[Metric, Score]
    protocol: dict[str, Any]
    clips: list[str]
    prompts: list[str]
    scores: dict[Metric, np.ndarray]
    samples: dict[tuple[str, int], Path]

    def score(self, metric: Metric, sample: tuple[str, int]) -> float:
        """A metric's value of a generated clip; not a number where it has none."""
        clip = self.samples[sample].name
        return float(self.scores[metric][self.clips.index(clip)]) if clip in self.clips else math.nan

    @property
    def run(self) -> Path:
        """The run directory, which may be gone."""
        return Path(self.protocol.get("run", "nowhere"))


def read_evaluation(folder: Path, name: str) -> EvaluatedRun:
    """Reads an evaluation. Raises UserError where files are missing, damaged or of another kind."""
    report, scores = _read(folder / REPORT), _read(folder / SCORES)
    listed = folder / CLIPS / SUMMARY
    samples = _read(listed) if listed.exists() else {"clips": []}
    try:
        stage = str(report["stage"])
        clips, prompts = list(scores["clips"]), list(scores.get("prompts") or [])
        per_clip = {metric_of(stage, key): np.array(values, np.float64) for key, values in scores["scores"].items()}
        if {len(prompts or clips), *map(len, per_clip.values())} != {len(clips)}:
            raise ValueError("it has not one value a clip")
        return EvaluatedRun(
            name=name,
            folder=folder,
            stage=stage,
            metrics={metric_of(stage, key): _score(score) for key, score in report["metrics"].items()},
            protocol=dict(report["protocol"]),
            clips=clips,
            prompts=prompts,
            scores=per_clip,
            samples={(entry["prompt"], entry["seed"]): folder / CLIPS / entry["file"] for entry in samples["clips"]},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder} holds no evaluation of this version ({error!r}): run launch.evaluate again"
        ) from None


def read_clip(path: Path) -> tuple[Frames, float]:
    """A generated clip and its frames a second. Raises UserError for a file that is missing or does not decode."""
    try:
        info = probe(path)
        return decode(path.read_bytes(), ClipShape(info.frames, info.height, info.width)), info.fps
    except (OSError, UnreadableVideo) as error:
        raise UserError(f"clip {path} does not decode ({error}): run launch.evaluate again") from None


def _score(values: dict[str, Any]) -> Score:
    low, high = (None if values[end] is None else float(values[end]) for end in ("low", "high"))
    return Score(float(values["value"]), low, high, int(values["n"]))


def _read(path: Path) -> Any:
    missing = f"there is no {path}: name the folder that launch.evaluate wrote"
    return read_json(path, missing=missing, advice="run launch.evaluate again")
