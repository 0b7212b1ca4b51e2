"""Report of a study of VAEs: tables for programs, plots and a page for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.report.blocks import Block, Curves, Picture, Report, Section, Table
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.cells import failures
from mobile_video_jax.studies.compression import cells
from mobile_video_jax.studies.compression_plots import PLOTS, write_plots
from mobile_video_jax.studies.compression_table import COLUMNS, LOSS, best_group, read_back, summary, table_rows
from mobile_video_jax.studies.config import StudyConfig
from mobile_video_jax.studies.learning import GAIN
from mobile_video_jax.studies.table import Row, write_tables

PROTOCOLS = {
    "flops": "training FLOPs of the VAEs, and of the transformers",
    "steps": "training steps",
    "decoder": "training steps, and the decoder's FLOPs",
}
RETRY = "Remove failure.json of a cell's folder to run it again."


def write_study(name: str, study: StudyConfig, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json, the plots and report.html; returns what a program wants first."""
    rows = table_rows(results)
    groups = summary(rows)
    write_tables(name, rows, groups, out)
    if rows:
        write_plots(results, groups, out)
        write_report(out / "report.html", _page(name, study, results, groups, out))
    return {
        **{"out": str(out), "cells": len(cells(study)), "finished": len(rows), "failed": len(failures(out))},
        "best": best_group(groups),
    }


def _page(name: str, study: StudyConfig, results: Sequence[Row], groups: Sequence[Row], out: Path) -> Report:
    facts = {
        "clips": f"{study.vae.clip}, evaluated on {_held_out_clips(results)} held out",
        "equal in all cells": PROTOCOLS[study.protocol],
        "VAE": f"{study.size}, {study.vae.steps} steps of {study.vae.batch_size} clips at {study.compressions[0]}",
        "transformer": f"{study.dit.transformer.depth} blocks of width {study.dit.transformer.width}, "
        f"{study.dit.steps} steps at {study.compressions[0]}",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    lead = (
        "Every VAE of the grid is trained, evaluated on held-out clips beside the best linear code of the same "
        "latents, and used for a small transformer of one size, "
    )
    if read_back(groups):
        lead += "whose samples a rule-based detector reads back."
    else:
        lead += f"whose {LOSS.heading} tells how well the latents diffuse."
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
            f"{GAIN} dB in the last quarter of their training: they show how far training went, not what the "
            "compression costs, and none of them is called best."
        )
    if read_back(groups):
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
