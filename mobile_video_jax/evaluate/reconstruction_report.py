"""A VAE's reconstruction of held-out clips as blocks of a report and as plain numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mobile_video_jax.evaluate.reconstruction import Reconstruction
from mobile_video_jax.metrics.clip_scores import RECONSTRUCTION
from mobile_video_jax.metrics.reconstruction import PSNR
from mobile_video_jax.report.blocks import Block, Cell, ClipView, Curves, Gallery, GalleryRow, Table


def reconstruction_numbers(reconstruction: Reconstruction) -> dict[str, Any]:
    """A reconstruction's figures, the scores' means by name in front."""
    means = {metric.key: score.value for metric, score in reconstruction.scores.items()}
    return {**means, "clips": len(reconstruction.clips), **reconstruction.numbers()}


def reconstruction_blocks(reconstructions: Mapping[str, Reconstruction], fps: float | int) -> list[Block]:
    """A table of scores, four clips of each data set beside their decoded forms, and the first one's spectrum."""
    rows: list[list[Cell]] = []
    for name, one in reconstructions.items():
        values = {metric: score.value for metric, score in one.scores.items()}
        rows.append([name, *(metric.text(values.get(metric)) for metric in RECONSTRUCTION), len(one.clips)])
    table = Table(["held-out clips", *(metric.title for metric in RECONSTRUCTION), "clips"], rows)
    galleries = [
        Gallery([GalleryRow(name, [view for i in range(min(4, len(one.clips))) for view in _pair(one, i)])], fps=fps)
        for name, one in reconstructions.items()
    ]
    return [table, *galleries, _spectrum(next(iter(reconstructions.values())))]


def worst_clips(reconstruction: Reconstruction, fps: float | int) -> Gallery:
    """The four clips of lowest PSNR."""
    order = np.argsort(reconstruction.per_clip[PSNR], kind="stable")[:4]
    rows = [GalleryRow(reconstruction.prompts[i], _pair(reconstruction, i)) for i in order.tolist()]
    return Gallery(rows, "The clips of lowest PSNR.", fps)


def _pair(reconstruction: Reconstruction, i: int) -> list[ClipView]:
    decibels = f"decoded, {reconstruction.per_clip[PSNR][i]:.1f} dB"
    return [ClipView(reconstruction.clips[i], "real"), ClipView(reconstruction.decoded[i], decibels)]


def _spectrum(reconstruction: Reconstruction) -> Curves:
    """The curve of latents beside that of pixels: latents rich in high frequency are hard to diffuse."""
    series = {name: (np.linspace(0, 1, len(curve)), curve) for name, curve in reconstruction.spectrum.items()}
    return Curves("spectrum", series, "position in the DCT's zig-zag order", "amplitude over the mean's", log_y=True)
