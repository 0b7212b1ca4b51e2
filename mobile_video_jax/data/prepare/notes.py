"""Notes for the maker of a data set: splits, rejections, rates, doubles."""

import collections
import statistics
from collections.abc import Mapping, Sequence

from mobile_video_jax.data.prepare.captions import Rejection
from mobile_video_jax.data.prepare.folder_scan import Clip

USUAL_BATCH = 64  # clips of a batch in the published configs
SAME_RATE = 0.02  # rates that differ by less than this share are one


def usual_rate(clips: Sequence[Clip]) -> float | None:
    """The median frame rate of the videos; None where all are pictures."""
    rates = [clip.info.fps for clip in clips if clip.info.frames > 1]
    return round(statistics.median(rates), 3) if rates else None


def notes_of(splits: Mapping[str, Sequence[Clip]], fps: float) -> list[str]:
    """Surprises of a data set of videos, in sentences; `fps` is the rate they were resampled to, or 0."""
    clips = [clip for part in splits.values() for clip in part]
    notes = [f"{split} is empty: too few clips" for split, part in splits.items() if not part]
    notes += _on_rates(clips, fps)
    if doubles := len(clips) - len({clip.sha256 for clip in clips}):
        notes.append(f"{doubles} files have the same contents as others; they stay in one split")
    return notes


def advice_on(train: int, rejections: Sequence[Rejection]) -> list[str]:
    """Further notes for the maker: the usual reasons of rejections, and whether `train` clips fill a batch."""
    reasons = collections.Counter(rejection.reason.partition(":")[0] for rejection in rejections)
    advice = [f"rejected {count}: {reason}" for reason, count in reasons.most_common(3)]
    if 0 < train < USUAL_BATCH:
        advice.append(f"too few clips for batches of {USUAL_BATCH}: train with --config.batch_size={train} or less")
    return advice


def _on_rates(clips: Sequence[Clip], fps: float) -> list[str]:
    if fps:
        slower = sum(clip.info.decoded < clip.info.frames * (1 - SAME_RATE) for clip in clips)
        return [f"{slower} videos are slower than {fps:g} frames/s: they show frames twice"] if slower else []
    rates = [clip.info.fps for clip in clips if clip.info.frames > 1]
    if not rates or max(rates) <= min(rates) * (1 + SAME_RATE):
        return []
    return [
        f"videos of {min(rates):.3g} to {max(rates):.3g} frames/s are mixed frame by frame: "
        f"--fps={usual_rate(clips):.3g} shows all at one speed"
    ]
