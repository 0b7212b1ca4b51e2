"""Figures of reports as PNG files."""

from pathlib import Path

from matplotlib.figure import Figure

from mobile_video_jax.core.files import replacing


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
