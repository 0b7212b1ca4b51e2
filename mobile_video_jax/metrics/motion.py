"""Motion energy of a clip, its mean change from frame to frame; and flicker, the part that goes back and forth."""

import numpy as np
from jaxtyping import Float64, UInt8

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.metric import Metric

Videos = UInt8[np.ndarray, "*b t h w 3"]
PerClip = Float64[np.ndarray, "*b"]

MOTION_ENERGY = Metric(
    key="motion_energy",
    name="motion energy",
    meaning="mean change from frame to frame, flicker included",
    unit="grey levels",
    frames=2,
)
BACK_AND_FORTH = Metric(
    key="flicker",
    name="flicker",
    meaning="the part of the motion energy that goes back and forth from frame to frame",
    unit="grey levels",
    more_is_better=False,
    frames=3,
)


def motion_energy(videos: Videos) -> PerClip:
    """Mean |x[t+1] - x[t]| of every clip in grey levels (0 to 255); flicker counts as motion.

    One clip [t h w 3] gives an array without axes, a batch [b t h w 3] one value a clip. Raises UserError for clips of
    fewer than 2 frames.
    """
    return _mean_change(videos, 1)


def smooth_motion_energy(videos: Videos) -> PerClip:
    """Mean |x[t+2] - x[t]| / 2 of every clip in grey levels: the motion energy of the means of neighbouring frames.

    Flicker that alternates from frame to frame counts for nothing, noise for half, and steady change in full. Shapes as
    in `motion_energy`. Raises UserError for clips of fewer than 3 frames.
    """
    return _mean_change(videos, 2)


def back_and_forth(videos: Videos) -> PerClip:
    """Motion energy less smooth motion energy, in grey levels: flicker of a clip without a reference.

    Nothing for steady change, half of the motion energy for noise, all of it for what alternates. Shapes and errors as
    in `smooth_motion_energy`.
    """
    return np.asarray(motion_energy(videos) - smooth_motion_energy(videos))


def _mean_change(videos: Videos, step: int) -> PerClip:
    frames = videos.shape[-4]
    if frames <= step:
        raise UserError(f"this motion energy needs clips of at least {step + 1} frames; these have {frames}")
    change = np.abs(videos[..., step:, :, :, :].astype(np.float32) - videos[..., :-step, :, :, :])
    return np.asarray(np.mean(change, axis=(-4, -3, -2, -1), dtype=np.float64) / step)
