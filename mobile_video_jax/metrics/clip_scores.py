"""Scores of clips one by one, and their means with intervals."""

from collections.abc import Iterable, Mapping

import numpy as np

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.metrics.accuracy import share
from mobile_video_jax.metrics.interval import Score, bootstrap_mean
from mobile_video_jax.metrics.motion import motion_energy, smooth_motion_energy

PerClip = Mapping[str, np.ndarray]  # values of a metric [n], not finite where a clip has none

ACCURACY = "accuracy_"  # begins the names of metrics that are right (1) or wrong (0) for each clip


def motion_scores(frames: Frames) -> dict[str, float]:
    """How much changes from frame to frame, and how much of it goes back and forth, both in grey levels (0 to 255).

    `flicker` is the motion energy less that of the means of neighbouring frames: nothing for steady change, half the
    motion energy for noise, all of it for what alternates. Clips of one frame have neither, of two no flicker.
    """
    if len(frames) < 2:
        return {}
    energy = float(motion_energy(frames))
    if len(frames) < 3:
        return {"motion_energy": energy}
    return {"motion_energy": energy, "flicker": energy - float(smooth_motion_energy(frames))}


def columns(rows: Iterable[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """One array a metric from one mapping a clip."""
    rows = list(rows)
    return {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}


def mean_scores(per_clip: PerClip) -> dict[str, Score]:
    """The mean of every metric over the clips that have a value: Wilson's interval for accuracies, else bootstrap."""
    finite = {name: values[np.isfinite(values)] for name, values in per_clip.items()}
    return {name: _mean(name, values) for name, values in finite.items() if len(values)}


def _mean(name: str, values: np.ndarray) -> Score:
    return share([bool(value) for value in values]) if name.startswith(ACCURACY) else bootstrap_mean(values)
