"""Page of an evaluation of a transformer: scores, generated clips beside real ones, and the failures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.evaluate.evaluation import PAGE
from mobile_video_jax.evaluate.generated_clips import ClipFiles
from mobile_video_jax.evaluate.score_table import protocol_facts, score_table
from mobile_video_jax.metrics.accuracy import ACCURACIES, ALL
from mobile_video_jax.metrics.clip_scores import PerClip
from mobile_video_jax.metrics.motion import BACK_AND_FORTH
from mobile_video_jax.metrics.reconstruction import PSNR
from mobile_video_jax.report.blocks import Block, ClipView, Gallery, GalleryRow, Report, Section
from mobile_video_jax.report.page import write_report

SHOWN = 8  # clips of each kind
ALL_RIGHT = ACCURACIES[ALL]


def write_generation_report(out: Path, report: dict[str, Any], clips: ClipFiles, per_clip: PerClip) -> None:
    """Writes report.html of the content of report.json."""
    protocol = report["protocol"]
    count, split = len(clips.captions), protocol["split"]
    lead = f"{count} clips generated for captions of the split {split}, beside the real clips."
    if protocol["image"]:
        lead += " Each starts from the real clip's first frame."
    fps = float(protocol["frame_rate"])
    first = _pairs(clips, per_clip, fps, clips.indices[:SHOWN], "The first, unselected.")
    sections = [
        Section("Scores", "\n".join(protocol["notes"]), [score_table(report)]),
        Section("Generated and real clips", "", [first]),
        Section("Failures", _count_wrong(per_clip), _failures(clips, per_clip, fps)),
    ]
    if clips.groups:
        sections.append(Section("Diversity", "Clips of one caption with different seeds.", [_diversity(clips, fps)]))
    name = Path(protocol["run"]).name
    write_report(out / PAGE, Report(f"Evaluation of {name}", lead, protocol_facts(protocol), sections))


def _count_wrong(per_clip: PerClip) -> str:
    if ALL_RIGHT not in per_clip:
        return ""
    right = per_clip[ALL_RIGHT]
    return f"The detector reads {np.sum(right == 0)} of {len(right)} clips otherwise than their captions ask."


def _failures(clips: ClipFiles, per_clip: PerClip, fps: float) -> list[Block]:
    """Clips with a wrong attribute, and those that are worst by another score."""
    blocks: list[Block] = []
    if ALL_RIGHT in per_clip and (wrong := np.flatnonzero(per_clip[ALL_RIGHT] == 0)).size:
        blocks.append(_pairs(clips, per_clip, fps, wrong[:SHOWN].tolist(), "The first with a wrong attribute."))
    for metric, sign, caption in ((PSNR, 1, "Lowest PSNR."), (BACK_AND_FORTH, -1, "Most flicker.")):
        if metric in per_clip:
            worst = np.argsort(sign * per_clip[metric], kind="stable")[: SHOWN // 2]
            blocks.append(_pairs(clips, per_clip, fps, worst.tolist(), caption))
    return blocks


def _pairs(clips: ClipFiles, per_clip: PerClip, fps: float, indices: Sequence[int], caption: str) -> Gallery:
    pairs = zip(indices, clips.generated(indices), clips.real(indices), strict=True)
    rows = [
        GalleryRow(clips.captions[i].text, [ClipView(frames, *_verdict(per_clip, i)), ClipView(real, "real")])
        for i, frames, real in pairs
    ]
    return Gallery(rows, caption, fps)


def _verdict(per_clip: PerClip, i: int) -> tuple[str, bool | None]:
    """A clip's wrong attributes and its PSNR in words, and whether it is right."""
    attributes = {name: per_clip[metric] for name, metric in ACCURACIES.items() if name != ALL and metric in per_clip}
    words = ["generated", *(f"wrong {name}" for name, right in attributes.items() if not right[i])]
    if PSNR in per_clip:
        words.append(f"{per_clip[PSNR][i]:.1f} dB")
    return ", ".join(words), bool(per_clip[ALL_RIGHT][i]) if ALL_RIGHT in per_clip else None


def _diversity(clips: ClipFiles, fps: float) -> Gallery:
    rows = [
        GalleryRow(clips.captions[group[0]].text, [ClipView(frames) for frames in clips.generated(group)])
        for group in clips.groups
    ]
    return Gallery(rows, fps=fps, columns=len(clips.groups[0]))
