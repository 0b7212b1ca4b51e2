"""Report of a study of VAEs: tables for programs, plots and a page for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.metrics.reconstruction import FLICKER, PSNR, SSIM
from mobile_video_jax.report.blocks import Block, Curves, Picture, Report, Section, Table
from mobile_video_jax.report.figures import panels, save_figure
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.cells import failures
from mobile_video_jax.studies.compression import cells
from mobile_video_jax.studies.config import StudyConfig
from mobile_video_jax.studies.learning import GAIN as LIMIT
from mobile_video_jax.studies.table import Column, Row, grouped, write_tables

QUALITY = Column("psnr", PSNR.title, "{:.2f}")
FLOOR = Column("linear_psnr", "PSNR of a linear code (dB)", "{:.2f}")
GAIN = Column("last_quarter_gain", "PSNR gained in the last quarter (dB)", "{:.2f}")
LOSS = Column("dit_eval_loss", "held-out velocity loss", "{:.4f}")
SAMPLES = Column("samples_right", "samples right in all")
COLUMNS = (
    QUALITY,
    FLOOR,
    GAIN,
    Column("ssim", SSIM.title, "{:.3f}"),
    Column("flicker", FLICKER.title, "{:.2f}"),
    Column("high_frequency", "high frequency", "{:.3f}"),
    Column("lattice", "lattice (grey levels)", "{:.2f}"),
    LOSS,
    SAMPLES,
)
COSTS = (
    "ratio",
    "tokens",
    "server_step_flops",
    "mobile_step_flops",
    "decoder_flops_per_frame",
    "vae_flops",
    "dit_flops",
    "network",
)
PROTOCOLS = {
    "flops": "training FLOPs of the VAEs, and of the transformers",
    "steps": "training steps",
    "decoder": "training steps, and the decoder's FLOPs",
}
RETRY = "Remove failure.json of a cell's folder to run it again."
# A plot of quality against each of these costs: its file and the label of its axis.
PLOTS = {
    "ratio": ("quality_vs_ratio.png", "RGB values for each latent value"),
    "tokens": ("quality_vs_tokens.png", "tokens of a 49x384x512 clip"),
}


def write_study(name: str, study: StudyConfig, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json, the plots and report.html; returns what a program wants first."""
    rows = [table_row(result) for result in results]
    if len({len(result["spectrum"]["latents"]) for result in results}) > 1:  # shares of tiles of other sizes
        rows = [row | {"high_frequency": None} for row in rows]
    groups = summary(rows)
    write_tables(name, rows, groups, out)
    if rows:
        for cost, (file, label) in PLOTS.items():
            _plot(groups, cost, label, out / file)
        _plot_spectra(results, out / "spectrum.png")
        write_report(out / "report.html", _page(name, study, results, groups, out))
    return {
        **{"out": str(out), "cells": len(cells(study)), "finished": len(rows), "failed": len(failures(out))},
        "best": _best(groups),
    }


def table_row(result: Row) -> Row:
    """One cell's figures, flat."""
    diffusability = result["diffusability"]
    accuracy = diffusability.get("accuracy", {})
    return {
        **{key: result[key] for key in ("name", "compression", "objective", "seed", *COSTS)},
        **{key: score["value"] for key, score in result["metrics"].items()},
        "high_frequency": result["high_frequency"].get("latents"),
        "lattice": result["lattice"]["amplitude"],
        "linear_psnr": result["learning"]["floor_psnr"],
        "linear_ssim": result["linear"].get("ssim", {}).get("value"),
        "last_quarter_gain": result["learning"]["psnr"]["all"] - result["learning"]["psnr"]["three_quarters"],
        **{f"psnr_at_{point}": value for point, value in result["learning"]["psnr"].items()},
        "untrained": result["learning"]["untrained"],
        "dit_eval_loss": diffusability["eval_loss"],
        **{f"samples_right_{name}": score["value"] for name, score in accuracy.items() if name != "all"},
        "samples_right": accuracy.get("all", {}).get("value"),
        "seconds": result["seconds"]["all"],
    }


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean and standard deviation over the seeds of each compression and objective."""
    return [
        {key: members[0][key] for key in ("compression", "objective", *COSTS)}
        | {"seeds": len(members), "untrained": next((row["untrained"] for row in members if row["untrained"]), "")}
        | {column.key: column.spread(members) for column in COLUMNS}
        for members in grouped(rows, lambda row: (row["compression"], row["objective"]))
    ]


def _read_back(groups: Sequence[Row]) -> bool:
    """True where the detector read samples back, which it does of synthetic clips alone."""
    return any(group[SAMPLES.key]["mean"] is not None for group in groups)


def _best(groups: Sequence[Row]) -> str | None:
    """The trained group whose samples are right most often, None where there is none.

    Where none were read back, the group of lowest held-out loss, if all have one compression: latents of other strides
    and channels are easier or harder to predict, so that their losses are on other scales, and None is best.
    """
    groups = [group for group in groups if not group["untrained"]]
    if _read_back(groups):
        known = [group for group in groups if group[SAMPLES.key]["mean"] is not None]
        best = max(known, key=lambda group: group[SAMPLES.key]["mean"])
    elif len({group["compression"] for group in groups}) == 1:
        best = min(groups, key=lambda group: group[LOSS.key]["mean"])
    else:
        return None
    return f"{best['compression']}-{best['objective']}"


def _plot(groups: Sequence[Row], cost: str, label: str, path: Path) -> None:
    """Reconstruction and diffusability of every group against a cost, with the deviation over seeds."""
    figure, both = panels(2, width=10)
    costs = sorted({group[cost] for group in groups})
    for axes, column in zip(both, (QUALITY, SAMPLES if _read_back(groups) else LOSS), strict=True):
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


def _page(name: str, study: StudyConfig, results: Sequence[Row], groups: Sequence[Row], out: Path) -> Report:
    facts = {
        "clips": f"{study.vae.clip}, evaluated on {_held_out_clips(results)} held out",
        "equal in all cells": PROTOCOLS[study.protocol],
        "VAE": f"{study.size}, {study.vae.steps} steps of {study.vae.batch_size} clips at {study.compressions[0]}",
        "transformer": f"{study.dit.model.depth} blocks of width {study.dit.model.width}, {study.dit.steps} steps "
        f"at {study.compressions[0]}",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    lead = (
        "Every VAE of the grid is trained, evaluated on held-out clips beside the best linear code of the same "
        "latents, and used for a small transformer of one size, "
    )
    read_back = "whose samples a rule-based detector reads back."
    lead += read_back if _read_back(groups) else f"whose {LOSS.heading} tells how well the latents diffuse."
    plots = [Picture(f"Quality against {label}.", out / file) for file, label in PLOTS.values()]
    sections = [
        Section("Quality", _explanation(groups), [_qualities(groups), *plots]),
        Section("Cost of a 49x384x512 clip, and of the study's trainings", "", [_cost_table(groups)]),
        *([Section("Failed cells", RETRY, [_failed(failed)])] if (failed := failures(out)) else []),
        Section("Spectrum", "", _spectrum(results)),
    ]
    return Report(f"Study: {name}", lead, facts, sections)


def _held_out_clips(results: Sequence[Row]) -> str:
    """The number of clips that cells were evaluated on; a range where it changed between them."""
    counts = sorted({result["metrics"]["ssim"]["n"] for result in results})
    return " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))


def _explanation(groups: Sequence[Row]) -> str:
    text = "Mean, and deviation over seeds where there are several. A dashed line is the linear code's PSNR."
    if any(group["untrained"] for group in groups):
        text += (
            " Cells marked as not trained, hollow in the plots, lie below that line or still gained more than "
            f"{LIMIT} dB in the last quarter of their training: they show how far training went, not what the "
            "compression costs, and none of them is called best."
        )
    if _read_back(groups):
        return text
    return (
        f"{text} No samples are read back: the detector knows synthetic clips alone. A lower {LOSS.heading} means "
        "latents that are easier to diffuse, among VAEs of one compression; latents of other strides and channels have "
        "losses on other scales, so no compression is called best."
    )


def _qualities(groups: Sequence[Row]) -> Table:
    shown = [column for column in COLUMNS if any(group[column.key]["mean"] is not None for group in groups)]
    lines = [
        [
            group["compression"],
            group["objective"],
            f"{group['ratio']:g}:1",
            f"no: {group['untrained']}" if group["untrained"] else "yes",
            *(column.text(group) for column in shown),
        ]
        for group in groups
    ]
    return Table(["compression", "objective", "ratio", "trained", *(column.heading for column in shown)], lines)


def _failed(failed: Mapping[str, str]) -> Table:
    return Table(["cell", "error"], [list(item) for item in failed.items()])


def _cost_table(groups: Sequence[Row]) -> Table:
    columns = [
        *("compression", "tokens", "server step, TFLOP", "mobile step, TFLOP", "decoder, GFLOP a frame"),
        *("VAE training, PFLOP", "transformer training, PFLOP", "VAE"),
    ]
    lines = {
        group["compression"]: [
            group["compression"],
            group["tokens"],
            group["server_step_flops"] / 1e12,
            group["mobile_step_flops"] / 1e12,
            group["decoder_flops_per_frame"] / 1e9,
            group["vae_flops"] / 1e15,
            group["dit_flops"] / 1e15,
            group["network"],
        ]
        for group in groups
    }
    return Table(columns, list(lines.values()), "A step is one forward and backward pass of one clip.")


def _spectrum(results: Sequence[Row]) -> list[Block]:
    curves = {
        result["name"]: (np.linspace(0, 1, len(curve)), np.asarray(curve))
        for result in results[:6]
        if len(curve := result["spectrum"]["latents"]) > 1
    }
    title, x_label = "spectrum of the latents", "position in zig-zag order"
    return [Curves(title, curves, x_label, "amplitude", log_y=True)] if curves else []
