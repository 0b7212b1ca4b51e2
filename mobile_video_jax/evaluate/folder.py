"""What launch.evaluate leaves in a folder, read back: scores, their protocol, and the clips if any were drawn."""

import collections
import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.arrays import Clips, Frames
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.data.video.container import UnreadableVideo
from mobile_video_jax.data.video.decode import decode
from mobile_video_jax.data.video.probe import probe
from mobile_video_jax.data.video.write import write_mp4
from mobile_video_jax.evaluate.protocol import REPORT, SCORES
from mobile_video_jax.generate.clips import FRAME_RATE
from mobile_video_jax.generate.folder import SUMMARY
from mobile_video_jax.generate.prompts import Request, file_names
from mobile_video_jax.metrics.interval import Score

CLIPS = "clips"
SCORE = [field.name for field in dataclasses.fields(Score)]


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """An evaluated run under the name it is shown by.

    `metrics` holds value, low, high and n by name, `scores` one value a clip [n] by name, not a number where a clip has
    none; `prompts` one text a clip, if any; `samples` the file of each drawn clip by its prompt and seed.
    """

    name: str
    folder: Path
    stage: str
    metrics: dict[str, dict[str, Any]]
    protocol: dict[str, Any]
    clips: list[str]
    prompts: list[str]
    scores: dict[str, np.ndarray]
    samples: dict[tuple[str, int], Path]

    def score(self, metric: str, sample: tuple[str, int]) -> float:
        """A metric's value of a drawn clip; not a number where it has none."""
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
        clips, prompts = list(scores["clips"]), list(scores.get("prompts") or [])
        per_clip = {metric: np.array(values, np.float64) for metric, values in scores["scores"].items()}
        if {len(prompts or clips), *map(len, per_clip.values())} != {len(clips)}:
            raise ValueError("it has not one value a clip")
        metrics = {metric: {key: score[key] for key in SCORE} for metric, score in report["metrics"].items()}
        return EvaluatedRun(
            *(name, folder, str(report["stage"]), metrics, dict(report["protocol"])),
            *(clips, prompts, per_clip),
            samples={(entry["prompt"], entry["seed"]): folder / CLIPS / entry["file"] for entry in samples["clips"]},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder} holds no evaluation of this version ({error!r}): run launch.evaluate again"
        ) from None


def write_clips(folder: Path, prompts: Sequence[str], clips: Clips) -> list[str]:
    """Writes an evaluation's clips as generate_folder does, clip i under the seed i, and returns the files' names."""
    requests = [Request(prompt, i) for i, prompt in enumerate(prompts)]
    names = [f"{name}.mp4" for name in file_names(requests)]
    for name, frames in zip(names, clips, strict=True):
        write_mp4(folder / CLIPS / name, frames, FRAME_RATE)
    listed = [{"file": name, "prompt": one.prompt, "seed": one.seed} for name, one in zip(names, requests, strict=True)]
    write_json(folder / CLIPS / SUMMARY, {"clips": listed})
    return names


def shown_names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of the folders above as tell them apart; one named again is numbered."""
    parts = [Path(os.path.abspath(path)).parts[1:] for path in paths]
    names, seen = [], collections.Counter[str]()
    for own in parts:
        others = [other for other in parts if other != own]
        depths = [depth for depth in range(1, len(own)) if all(other[-depth:] != own[-depth:] for other in others)]
        name = "/".join(own[-min(depths, default=len(own)) :])
        seen[name] += 1
        names.append(f"{name} ({seen[name]})" if seen[name] > 1 else name)
    return names


def read_clip(path: Path) -> tuple[Frames, float]:
    """A drawn clip and its frames a second. Raises UserError for a file that is missing or does not decode."""
    try:
        info = probe(path)
        return decode(path.read_bytes(), ClipShape(info.frames, info.height, info.width)), info.fps
    except (OSError, UnreadableVideo) as error:
        raise UserError(f"clip {path} does not decode ({error}): run launch.evaluate again") from None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError:
        raise UserError(f"there is no {path}: name the folder that launch.evaluate wrote") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): run launch.evaluate again") from None
