"""What a study shows: tables for programs, plots and a page for people."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.report.blocks import Curves, Report, Section, Table
from mobile_video_jax.report.figures import save_figure
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.compression import cells
from mobile_video_jax.studies.config import StudyConfig
from mobile_video_jax.studies.table import Row, spread, write_tables

# What is averaged over seeds: column of the table, heading, format.
QUALITIES = {
    "psnr": ("PSNR (dB)", "{:.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "flicker": ("flicker", "{:.2f}"),
    "high_frequency": ("high frequency", "{:.3f}"),
    "lattice": ("lattice", "{:.2f}"),
    "samples_right": ("samples right in all", "{:.1%}"),
}


def write_study(name: str, study: StudyConfig, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json, the plots and report.html; returns what a program wants first."""
    rows = [table_row(result) for result in results]
    groups = summary(rows)
    write_tables(name, rows, groups, out)
    if rows:
        _plot(groups, "ratio", "RGB values for each latent value", out / "quality_vs_ratio.png")
        _plot(groups, "tokens", "tokens of a 49x384x512 clip", out / "quality_vs_tokens.png")
        _plot_spectra(results, out / "spectrum.png")
        write_report(out / "report.html", _page(name, study, results, rows, groups))
    total = len(cells(study))
    return {"out": str(out), "cells": total, "finished": len(rows), "best": _best(groups)}


def table_row(result: Row) -> Row:
    """One cell's figures, flat."""
    diffusability = result["diffusability"]
    accuracy = diffusability.get("accuracy", {})
    return {
        **{key: result[key] for key in ("name", "compression", "objective", "seed", "ratio", "tokens")},
        **{key: result[key] for key in ("server_step_flops", "mobile_step_flops", "decoder_flops_per_frame")},
        **{key: score["value"] for key, score in result["metrics"].items()},
        "high_frequency": result["high_frequency"].get("latents"),
        "lattice": result["lattice"]["amplitude"],
        "dit_eval_loss": diffusability["eval_loss"],
        **{f"samples_right_{name}": score["value"] for name, score in accuracy.items() if name != "all"},
        "samples_right": accuracy.get("all", {}).get("value"),
        "seconds": result["seconds"]["all"],
    }


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean and standard deviation over the seeds of each compression and objective."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["compression"], row["objective"]), []).append(row)
    merged = []
    for (compression, objective), members in groups.items():
        fixed = ("ratio", "tokens", "server_step_flops", "mobile_step_flops", "decoder_flops_per_frame")
        merged.append(
            {"compression": compression, "objective": objective, "seeds": len(members)}
            | {key: members[0][key] for key in fixed}
            | {key: spread([member[key] for member in members if key in member]) for key in QUALITIES}
        )
    return merged


def _best(groups: Sequence[Row]) -> str | None:
    """The group whose samples are right most often, or whose PSNR is best where none were read back."""
    by_samples = [group for group in groups if group["samples_right"]["mean"] is not None]
    key = "samples_right" if by_samples else "psnr"
    best = max(by_samples or groups, key=lambda group: group[key]["mean"], default=None)
    return f"{best['compression']}-{best['objective']}" if best else None


def _plot(groups: Sequence[Row], axis: str, label: str, path: Path) -> None:
    """Reconstruction and diffusability of every group against a cost, with the spread over seeds."""
    figure = Figure(figsize=(10, 4), layout="constrained", dpi=150)
    costs = sorted({group[axis] for group in groups})
    for axes, quality in zip(figure.subplots(1, 2), ("psnr", "samples_right"), strict=True):
        for i, group in enumerate(groups):
            mean, spread = group[quality]["mean"], group[quality]["std"]
            if mean is None:
                continue
            # Groups of one cost stand side by side, a twentieth of a doubling apart, with labels above each other.
            before = sum(other[axis] == group[axis] for other in groups[:i])
            place = group[axis] * 2 ** (0.05 * before)
            point = axes.errorbar(place, mean, spread or None, fmt="o", capsize=3)
            name = group["compression"] + ("" if group["objective"] == "plain" else f" {group['objective']}")
            axes.annotate(
                name,
                (place, mean),
                (5, 5 - 11 * before),
                textcoords="offset points",
                fontsize=8,
                color=point[0].get_color(),
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(costs, [f"{cost:,g}" for cost in costs])
        axes.minorticks_off()
        axes.set_xlabel(label)
        axes.set_ylabel(QUALITIES[quality][0])
        axes.margins(0.15)
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _plot_spectra(results: Sequence[Row], path: Path) -> None:
    """Zig-zag curves of every cell's latents, and of the pixels in tiles of the same size."""
    figure = Figure(figsize=(6, 4), layout="constrained", dpi=150)
    axes = figure.subplots()
    for result in results:
        curve = result["spectrum"]["latents"]
        if len(curve) > 1:
            axes.plot(np.linspace(0, 1, len(curve)), curve, marker=".", label=result["name"])
    longest = max((result["spectrum"]["rgb"] for result in results), key=len)
    axes.plot(np.linspace(0, 1, len(longest)), longest, "k--", label="RGB")
    axes.set_yscale("log")
    axes.set_xlabel("place in zig-zag order (0: mean, 1: highest frequency)")
    axes.set_ylabel("amplitude over that of the mean")
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7)
    save_figure(figure, path)


def _page(name: str, study: StudyConfig, results: Sequence[Row], rows: Sequence[Row], groups: Sequence[Row]) -> Report:
    facts = {
        "clips": f"{study.vae.clip}, judged on {study.test_clips} held out",
        "VAE": f"{study.size}, {study.vae.steps} steps of {study.vae.batch_size} clips",
        "transformer": f"{study.dit.model.depth} blocks of width {study.dit.model.width}, {study.dit.steps} steps",
        "cells": f"{len(rows)} of {len(cells(study))} finished",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    lead = (
        "Every VAE of the grid is trained alike, judged on held-out clips, and used for a small transformer of one "
        "size and budget, whose samples a classical detector reads back."
    )
    curves = {
        result["name"]: (np.linspace(0, 1, len(curve)), np.asarray(curve))
        for result in results[:6]
        if len(curve := result["spectrum"]["latents"]) > 1
    }
    spectrum = Curves("spectrum of the latents", curves, "place in zig-zag order", "amplitude", log_y=True)
    sections = [
        Section(
            "Quality",
            "Mean, and deviation over seeds where there are several; flicker and lattice in grey levels.",
            [_qualities(groups)],
        ),
        Section("Cost of a 49x384x512 clip", "", [_cost_table(groups)]),
        Section("Spectrum", "", [spectrum] if curves else []),
    ]
    return Report(f"Study: {name}", lead, facts, sections)


def _qualities(groups: Sequence[Row]) -> Table:
    def cell(group: Row, key: str) -> str:
        spread, form = group[key], QUALITIES[key][1]
        if spread["mean"] is None:
            return "–"
        return form.format(spread["mean"]) + (f" ± {form.format(spread['std'])}" if group["seeds"] > 1 else "")

    columns = ["compression", "objective", "ratio", *(heading for heading, _ in QUALITIES.values())]
    lines = [
        [group["compression"], group["objective"], f"{group['ratio']:g}:1", *(cell(group, key) for key in QUALITIES)]
        for group in groups
    ]
    return Table(columns, lines)


def _cost_table(groups: Sequence[Row]) -> Table:
    columns = ["compression", "tokens", "server step, TFLOP", "mobile step, TFLOP", "decoder, GFLOP a frame"]
    lines = {
        group["compression"]: [
            group["compression"],
            group["tokens"],
            group["server_step_flops"] / 1e12,
            group["mobile_step_flops"] / 1e12,
            group["decoder_flops_per_frame"] / 1e9,
        ]
        for group in groups
    }
    return Table(columns, list(lines.values()), "A step is one forward and backward pass of one clip.")
