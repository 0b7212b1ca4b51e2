"""A judgement of a VAE as blocks of a report and as plain numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mobile_video_jax.evaluate.reconstruction import Judgement
from mobile_video_jax.report.blocks import Block, ClipView, Curves, Gallery, GalleryRow, Table


def judgement_numbers(judgement: Judgement) -> dict[str, Any]:
    """A judgement's figures, the scores' means by name in front."""
    means = {name: score.value for name, score in judgement.scores.items()}
    return {**means, "clips": len(judgement.clips), **judgement.numbers()}


def judgement_blocks(judgements: Mapping[str, Judgement], fps: float | int) -> list[Block]:
    """A table of scores, four clips of each data set beside what the VAE makes of them, and the spectrum."""
    rows = [
        [name, *(scores[key].value if key in scores else "–" for key in ("psnr", "ssim", "flicker")), len(made.clips)]
        for name, made in judgements.items()
        for scores in (made.scores,)
    ]
    table = Table(["held-out clips", "PSNR (dB)", "SSIM", "flicker (grey levels)", "clips"], rows)
    galleries = [Gallery([GalleryRow(name, _views(made))], fps=fps) for name, made in judgements.items()]
    return [table, *galleries, _spectrum(next(iter(judgements.values())))]


def worst_clips(made: Judgement, fps: float | int) -> Gallery:
    """The four clips of lowest PSNR."""
    order = np.argsort(made.per_clip["psnr"], kind="stable")[:4]
    return Gallery(
        [GalleryRow(made.prompts[i], _pair(made, i)) for i in order.tolist()], "The clips of lowest PSNR.", fps
    )


def _views(made: Judgement) -> list[ClipView]:
    return [view for i in range(min(4, len(made.clips))) for view in _pair(made, i)]


def _pair(made: Judgement, i: int) -> list[ClipView]:
    decibels = f"decoded, {made.per_clip['psnr'][i]:.1f} dB"
    return [ClipView(made.clips[i], "real"), ClipView(made.decoded[i], decibels)]


def _spectrum(made: Judgement) -> Curves:
    """The curve of latents beside that of pixels: latents rich in high frequency are hard to diffuse."""
    series = {name: (np.linspace(0, 1, len(curve)), curve) for name, curve in made.spectrum.items()}
    return Curves("spectrum", series, "place in the DCT's zig-zag order", "amplitude over the mean's", log_y=True)
