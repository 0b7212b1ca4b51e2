"""Plots of a study of VAEs: quality against costs, and spectra."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mobile_video_jax.report.figures import panels, save_figure
from mobile_video_jax.studies.compression_table import FLOOR, LOSS, QUALITY, SAMPLES, read_back
from mobile_video_jax.studies.table import Row

# A plot of quality against each of these costs: its file and the label of its axis.
PLOTS = {
    "ratio": ("quality_vs_ratio.png", "RGB values for each latent value"),
    "tokens": ("quality_vs_tokens.png", "tokens of a 49x384x512 clip"),
}


def write_plots(results: Sequence[Row], groups: Sequence[Row], out: Path) -> None:
    """Writes a plot against each cost, and the spectra."""
    for cost, (file, label) in PLOTS.items():
        _plot(groups, cost, label, out / file)
    _plot_spectra(results, out / "spectrum.png")


def _plot(groups: Sequence[Row], cost: str, label: str, path: Path) -> None:
    """Reconstruction and diffusability of every group against a cost, with the deviation over seeds."""
    figure, both = panels(2, width=10)
    costs = sorted({group[cost] for group in groups})
    for axes, column in zip(both, (QUALITY, SAMPLES if read_back(groups) else LOSS), strict=True):
        for i, group in enumerate(groups):
            mean, std = group[column.key]["mean"], group[column.key]["std"]
            if mean is None:
                continue
            # Groups of one cost are side by side, a twentieth of a doubling apart, with labels above each other.
            before = sum(other[cost] == group[cost] for other in groups[:i])
            x = group[cost] * 2 ** (0.05 * before)
            points = axes.errorbar(x, mean, std or None, fmt="o", capsize=3)[0]
            colour = points.get_color()
            points.set_fillstyle("none" if group["untrained"] else "full")
            if column is QUALITY and (floor := group[FLOOR.key]["mean"]) is not None:
                axes.hlines(floor, x / 1.15, x * 1.15, linestyles="dashed", colors=colour)
            offset = (5, 5 - 11 * before)
            axes.annotate(_name(group), (x, mean), offset, textcoords="offset points", fontsize=8, color=colour)
        axes.set_xscale("log", base=2)
        axes.set_xticks(costs, [f"{value:,g}" for value in costs])
        axes.minorticks_off()
        axes.set_xlabel(label)
        axes.set_ylabel(column.heading)
        axes.margins(0.15)
    save_figure(figure, path)


def _name(group: Row) -> str:
    objective = "" if group["objective"] == "plain" else f" {group['objective']}"
    return f"{group['compression']}{objective}"


def _plot_spectra(results: Sequence[Row], path: Path) -> None:
    """Zig-zag curves of every cell's latents, and of the pixels in tiles of the same size."""
    figure, [axes] = panels(1, width=6)
    for result in results:
        curve = result["spectrum"]["latents"]
        if len(curve) > 1:
            axes.plot(np.linspace(0, 1, len(curve)), curve, marker=".", label=result["name"])
    longest = max((result["spectrum"]["rgb"] for result in results), key=len)
    axes.plot(np.linspace(0, 1, len(longest)), longest, "k--", label="RGB")
    axes.set_yscale("log")
    axes.set_xlabel("position in zig-zag order (0: mean, 1: highest frequency)")
    axes.set_ylabel("amplitude over that of the mean")
    axes.legend(frameon=False, fontsize=7)
    save_figure(figure, path)
