"""Plots of a study of VAEs: quality against costs, rate and distortion, spectra, and clips side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mobile_video_jax.core.clip import Compression
from mobile_video_jax.report.figures import panels, save_figure
from mobile_video_jax.studies.compression_table import BITS, FLOOR, LOSS, PHONE, QUALITY, judge, on_front
from mobile_video_jax.studies.table import Column, Row, grouped

# A plot of quality against each of these costs: its file and the label of its axis.
PLOTS = {
    "ratio": ("quality_vs_ratio.png", "RGB values for each latent value"),
    "tokens": ("quality_vs_tokens.png", "tokens of a 49x384x512 clip"),
    PHONE: ("quality_vs_phone.png", "seconds of a 49x384x512 clip on the phone, estimated"),
}
RATE = ("rate_distortion.png", "PSNR against the bits of the posteriors, a line for each stride.")


def write_plots(results: Sequence[Row], groups: Sequence[Row], out: Path) -> None:
    """Writes a plot against each cost, rate and distortion, and the spectra."""
    for cost, (file, label) in PLOTS.items():
        _plot(groups, cost, label, out / file)
    _plot_rates(groups, out / RATE[0])
    _plot_spectra(results, out / "spectrum.png")


def _plot(groups: Sequence[Row], cost: str, label: str, path: Path) -> None:
    """Reconstruction and generation of every group against a cost, with the deviation over seeds, or the interval."""
    figure, both = panels(2, width=10)
    costs = sorted({group[cost] for group in groups})
    for axes, column in zip(both, (QUALITY, judge(groups) or LOSS), strict=True):
        for i, group in enumerate(groups):
            if group[column.key]["mean"] is None:
                continue
            # Groups of one cost are side by side, a twentieth of a doubling apart, with labels above each other.
            before = sum(other[cost] == group[cost] for other in groups[:i])
            x = group[cost] * 2 ** (0.05 * before)
            colour = _point(axes, x, group, column, before)
            if column is QUALITY and (floor := group[FLOOR.key]["mean"]) is not None:
                axes.hlines(floor, x / 1.15, x * 1.15, linestyles="dashed", colors=colour)
        if cost == PHONE and column is not LOSS:
            best = on_front(groups, column)
            axes.plot([group[PHONE] for group in best], [group[column.key]["mean"] for group in best], "k:", zorder=0)
        axes.set_xscale("log", base=2)
        axes.set_xticks(costs, [f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in costs])
        axes.minorticks_off()
        axes.set_xlabel(label)
        axes.set_ylabel(column.heading)
        axes.margins(0.15)
    save_figure(figure, path)


def _plot_rates(groups: Sequence[Row], path: Path) -> None:
    """PSNR against bits a pixel."""
    figure, [axes] = panels(1, width=6)
    for strides in grouped(groups, _strides):
        curve = sorted(strides, key=lambda group: float(group[BITS.key]["mean"]))
        x, y = ([group[column.key]["mean"] for group in curve] for column in (BITS, QUALITY))
        colour = axes.plot(x, y, "-", zorder=0)[0].get_color()
        for i, group in enumerate(curve):
            _point(axes, x[i], group, QUALITY, 0, colour)
    axes.set_xlabel(BITS.heading)
    axes.set_ylabel(QUALITY.heading)
    axes.margins(0.15)
    save_figure(figure, path)


def _point(axes: Axes, x: float, group: Row, column: Column, before: int, colour: Any = None) -> Any:
    """Draws a group's mean with its error and its name, hollow where it is not trained; returns the colour."""
    figures = group[column.key]
    mean, error = figures["mean"], figures["std"] or None
    if figures.get("low") is not None:
        error = [[mean - figures["low"]], [figures["high"] - mean]]
    points = axes.errorbar(x, mean, error, fmt="o", capsize=3, color=colour)[0]
    points.set_fillstyle("none" if group["untrained"] else "full")
    colour = points.get_color()
    offset = (5, 5 - 11 * before)
    axes.annotate(_name(group), (x, mean), offset, textcoords="offset points", fontsize=8, color=colour)
    return colour


def _strides(group: Row) -> tuple[int, int, str]:
    compression = Compression.parse(group["compression"])
    return compression.time, compression.space, group["objective"]


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
