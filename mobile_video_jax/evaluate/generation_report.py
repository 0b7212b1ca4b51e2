"""The page of an evaluation of a transformer: scores, drawn clips beside real ones, and the failures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.evaluate.generation_scores import Drawn
from mobile_video_jax.evaluate.protocol import PAGE, facts, score_table
from mobile_video_jax.generate.clips import FRAME_RATE
from mobile_video_jax.metrics.clip_scores import ACCURACY, PerClip
from mobile_video_jax.report.blocks import Block, ClipView, Gallery, GalleryRow, Report, Section
from mobile_video_jax.report.page import write_report

SHOWN = 8  # clips of each kind
ALL = f"{ACCURACY}all"


def write_generation_report(out: Path, report: dict[str, Any], drawn: Drawn, per_clip: PerClip) -> None:
    """Writes report.html of what report.json holds."""
    protocol = report["protocol"]
    lead = f"{len(drawn.captions)} clips drawn for captions of the split {protocol['split']}, beside the real clips."
    if protocol["image"]:
        lead += " Each starts from the real clip's first frame."
    sections = [
        Section("Scores", "\n".join(protocol["notes"]), [score_table(report)]),
        Section(
            "Drawn and real clips", "", [_pairs(drawn, per_clip, drawn.everyone[:SHOWN], "The first, unselected.")]
        ),
        Section("Failures", _count_wrong(per_clip), _failures(drawn, per_clip)),
    ]
    if drawn.groups:
        sections.append(Section("Diversity", "Clips of one caption with different seeds.", [_diversity(drawn)]))
    name = Path(protocol["run"]).name
    write_report(out / PAGE, Report(f"Evaluation of {name}", lead, facts(protocol), sections))


def _count_wrong(per_clip: PerClip) -> str:
    if ALL not in per_clip:
        return ""
    right = per_clip[ALL]
    return f"The detector reads {np.sum(right == 0)} of {len(right)} clips otherwise than their captions ask."


def _failures(drawn: Drawn, per_clip: PerClip) -> list[Block]:
    """Clips that show something else than asked, and those that are worst by another score."""
    blocks: list[Block] = []
    if ALL in per_clip and (wrong := np.flatnonzero(per_clip[ALL] == 0)).size:
        blocks.append(_pairs(drawn, per_clip, wrong[:SHOWN], "The first with a wrong attribute."))
    for metric, sign, caption in (("psnr", 1, "Lowest PSNR."), ("flicker", -1, "Most flicker.")):
        if metric in per_clip:
            worst = np.argsort(sign * per_clip[metric], kind="stable")[: SHOWN // 2]
            blocks.append(_pairs(drawn, per_clip, worst, caption))
    return blocks


def _pairs(drawn: Drawn, per_clip: PerClip, places: Sequence[int] | np.ndarray, caption: str) -> Gallery:
    numbers = [int(i) for i in places]
    clips = zip(numbers, drawn.clips(numbers), drawn.real(numbers), strict=True)
    rows = [
        GalleryRow(drawn.captions[i].text, [ClipView(made, *_verdict(per_clip, i)), ClipView(real, "real")])
        for i, made, real in clips
    ]
    return Gallery(rows, caption, FRAME_RATE)


def _verdict(per_clip: PerClip, i: int) -> tuple[str, bool | None]:
    """What is wrong with a clip and how close it is to the real one, and whether it is right."""
    wrong = [name for name in per_clip if name.startswith(ACCURACY) and name != ALL and not per_clip[name][i]]
    words = ["drawn", *(f"wrong {name.removeprefix(ACCURACY)}" for name in wrong)]
    if "psnr" in per_clip:
        words.append(f"{per_clip['psnr'][i]:.1f} dB")
    return ", ".join(words), bool(per_clip[ALL][i]) if ALL in per_clip else None


def _diversity(drawn: Drawn) -> Gallery:
    rows = [
        GalleryRow(drawn.captions[group[0]].text, [ClipView(frames) for frames in drawn.clips(group)])
        for group in drawn.groups
    ]
    return Gallery(rows, fps=FRAME_RATE, columns=len(drawn.groups[0]))
