"""Results of VBench read back, normalised and combined as its leaderboard does (arXiv 2311.17982).

VBench (github.com/Vchitect/VBench) evaluates clips in 16 dimensions with networks of its own. The tool and its weights
are for the user to install and run; this module reads its result files.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.interval import Score, mean_score
from mobile_video_jax.metrics.metric import Metric


@dataclasses.dataclass(frozen=True)
class Dimension:
    """The scores that become 0 and 1, and the weight in the mean of its group."""

    low: float
    high: float
    weight: float = 1.0


# VBench's scripts/constant.py: NORMALIZE_DIC, DIM_WEIGHT, QUALITY_LIST, SEMANTIC_LIST and the two groups' weights.
QUALITY = {
    "subject_consistency": Dimension(0.1462, 1.0),
    "background_consistency": Dimension(0.2615, 1.0),
    "temporal_flickering": Dimension(0.6293, 1.0),
    "motion_smoothness": Dimension(0.706, 0.9975),
    "dynamic_degree": Dimension(0.0, 1.0, weight=0.5),
    "aesthetic_quality": Dimension(0.0, 1.0),
    "imaging_quality": Dimension(0.0, 1.0),
}
SEMANTIC = {
    "object_class": Dimension(0.0, 1.0),
    "multiple_objects": Dimension(0.0, 1.0),
    "human_action": Dimension(0.0, 1.0),
    "color": Dimension(0.0, 1.0),
    "spatial_relationship": Dimension(0.0, 1.0),
    "scene": Dimension(0.0, 0.8222),
    "appearance_style": Dimension(0.0009, 0.2855),
    "temporal_style": Dimension(0.0, 0.364),
    "overall_consistency": Dimension(0.0, 0.364),
}
DIMENSIONS = QUALITY | SEMANTIC
QUALITY_WEIGHT, SEMANTIC_WEIGHT = 4, 1
TOTALS = ("quality", "semantic", "total")
METRICS = tuple(Metric(name, name.replace("_", " "), more_is_better=True) for name in (*DIMENSIONS, *TOTALS))


@dataclasses.dataclass(frozen=True)
class Result:
    """VBench's result in one dimension: the score and, where its file holds them, the values of videos by name."""

    score: float
    videos: dict[str, float]

    def with_interval(self) -> Score:
        """The score with its 95 % interval over prompts, whose videos count as one; no interval for other averages.

        VBench averages most dimensions over videos. Where it weighs them otherwise the interval would not be that of
        the score.
        """
        alone = Score(self.score, None, None, len(self.videos))
        if not self.videos or not np.isclose(np.mean(list(self.videos.values())), self.score, rtol=0.01):
            return alone
        prompts: dict[str, list[float]] = {}
        for name, value in self.videos.items():
            prompts.setdefault(prompt_of(name), []).append(value)
        interval = mean_score(np.array([np.mean(values) for values in prompts.values()]))
        return dataclasses.replace(alone, low=interval.low, high=interval.high)


def normalised(scores: Mapping[str, float]) -> dict[str, float]:
    """Each dimension's score on its scale: (score - low) / (high - low)."""
    return {
        name: (score - DIMENSIONS[name].low) / (DIMENSIONS[name].high - DIMENSIONS[name].low)
        for name, score in scores.items()
    }


def totals(scores: Mapping[str, float]) -> dict[str, float]:
    """The groups' weighted means of normalised scores and total = (4 quality + semantic) / 5.

    Only what all its dimensions are there for: VBench's own script counts missing ones as zero.
    """
    scale, groups = normalised(scores), {}
    for group, dimensions in (("quality", QUALITY), ("semantic", SEMANTIC)):
        if dimensions.keys() <= scale.keys():
            weights = [dimension.weight for dimension in dimensions.values()]
            groups[group] = float(np.average([scale[name] for name in dimensions], weights=weights))
    if len(groups) == 2:
        groups["total"] = combined(groups["quality"], groups["semantic"])
    return groups


def combined(quality: float, semantic: float) -> float:
    """The total score of the two groups'."""
    return (QUALITY_WEIGHT * quality + SEMANTIC_WEIGHT * semantic) / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)


def prompt_of(name: str) -> str:
    """The prompt in the name of a video, "PROMPT-INDEX"."""
    return re.sub(r"-\d+$", "", name)


def read_results(path: Path) -> dict[str, Result]:
    """VBench's or VBench-Long's results by dimension: one *_eval_results.json, or all of a folder and those below it.

    Raises UserError where there are none, for damaged files, unknown dimensions and a dimension found twice.
    """
    files = sorted(path.rglob("*_eval_results.json")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} holds no *_eval_results.json: name the folder that VBench wrote its results to")
    results: dict[str, Result] = {}
    for file in files:
        for dimension, result in _read(file).items():
            if dimension not in DIMENSIONS:
                raise UserError(
                    f"{file} has the dimension {dimension!r}, which is none of VBench's 16 for text to video"
                )
            if dimension in results:
                raise UserError(
                    f"{path} has {dimension} twice, again in {file.name}: keep the results of one run there"
                )
            results[dimension] = result
    return results


def _read(file: Path) -> dict[str, Result]:
    try:
        return {name: _result(name, entry) for name, entry in json.loads(file.read_text()).items()}
    except OSError as error:
        raise UserError(f"VBench's results {file} do not open: {error.strerror}") from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} holds no results of VBench ({error!r}): name what it wrote, *_eval_results.json"
        ) from None


def _result(dimension: str, entry: list[Any]) -> Result:
    """A dimension's [score, videos]; VBench-Long puts the videos last, after the pieces that it cut them into."""
    # Of a single video the image quality is given in percent.
    unit = 100 if dimension == "imaging_quality" else 1
    videos = [video for video in entry[-1] if "video_path" in video] if len(entry) > 1 else []
    values = {Path(video["video_path"]).stem: float(video["video_results"]) / unit for video in videos}
    return Result(float(entry[0]), values)
