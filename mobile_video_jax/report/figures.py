"""Figures of reports: panels of one style, written as PNG files."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mobile_video_jax.core.files import replacing


def panels(count: int, *, width: float | int, height: float | int = 4, **sharing: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes side by side, in inches, with a light grid and no frame."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
    axes: list[Axes] = list(np.atleast_1d(figure.subplots(1, count, **sharing)))
    for one in axes:
        one.grid(alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
