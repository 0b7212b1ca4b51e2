"""Report of a study of VAEs: tables for programs, plots and a page for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.cost.phone.table import PHONE as PHONE_NAME
from mobile_video_jax.metrics.paired import compare
from mobile_video_jax.report.blocks import Block, Cell, Curves, Marked, Picture, Report, Section, Table
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.cell_costs import PHONE_STEPS
from mobile_video_jax.studies.cells import failures
from mobile_video_jax.studies.compression import cells
from mobile_video_jax.studies.compression_clips import FILE as CLIPS
from mobile_video_jax.studies.compression_clips import write_clips
from mobile_video_jax.studies.compression_plots import PLOTS, RATE, write_plots
from mobile_video_jax.studies.compression_table import (
    GENERATIONS,
    KVD,
    LOSS,
    PHONE_COSTS,
    RECONSTRUCTIONS,
    best_group,
    judge,
    read_back,
    summary,
    table_rows,
)
from mobile_video_jax.studies.config import StudyConfig
from mobile_video_jax.studies.learning import GAIN
from mobile_video_jax.studies.table import Column, Row, write_tables

PROTOCOLS = {
    "flops": "training FLOPs of the VAEs, and of the transformers",
    "steps": "training steps",
    "decoder": "training steps, and the decoder's FLOPs",
}
BITS_ARE = (
    "Bits a pixel are the KL divergence of the posteriors from the normal law of each channel's own aggregate over the "
    "test clips, an upper bound on what the latents tell of them. A standard normal in place of the aggregate would "
    "count the latents' scale, which a small KL term leaves free."
)
PHONE_IS = (
    f"A step is one forward and backward pass of one clip. Times on {PHONE_NAME} are estimates, by the ops' roofline: "
    f"{PHONE_STEPS} steps of the mobile transformer, and the decoder frame by frame. Decoder, MB: its weights, the "
    "stream's state and the values of its largest op. More than 16,384 tokens are beyond the neural engine, which "
    "makes those times too short."
)
CLIPS_ARE = "First, middle and last frame of the first test clip: real, decoded, and generated for its caption."
RETRY = "Remove failure.json of a cell's folder to run it again."


def write_study(name: str, study: StudyConfig, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json, the plots and report.html; returns what a program wants first."""
    rows = table_rows(results)
    groups = summary(rows)
    write_tables(name, rows, groups, out)
    if rows:
        write_plots(results, groups, out)
        write_clips(study, [row["name"] for row in rows], out)
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
        lead += "whose samples for held-out captions are evaluated beside the real clips."
    plots = [Picture(f"Quality against {label}.", out / file) for file, label in PLOTS.values()]
    rates = Picture(RATE[1], out / RATE[0])
    sections = [
        Section("Reconstruction", _explanation(groups), [_qualities(groups, RECONSTRUCTIONS), *_differences(results)]),
        Section("Generation", _of_samples(groups), [_qualities(groups, GENERATIONS), *plots]),
        Section("Rate and distortion", BITS_ARE, [rates]),
        Section("Clips", "", [Picture(CLIPS_ARE, out / CLIPS)]),
        Section("Cost of a 49x384x512 clip, and of the study's trainings", PHONE_IS, [_cost_table(groups)]),
        *([Section("Failed cells", RETRY, [_failed(failed)])] if (failed := failures(out)) else []),
        Section("Spectrum", "", _spectrum(results)),
    ]
    return Report(f"Study: {name}", lead, facts, sections)


def _held_out_clips(results: Sequence[Row]) -> str:
    """The number of clips that cells were evaluated on; a range where it changed between them."""
    counts = sorted({result["metrics"]["ssim"]["n"] for result in results})
    return " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))


def _explanation(groups: Sequence[Row]) -> str:
    text = (
        "Mean, with the deviation over seeds where there are several, else the 95 % interval over clips. A dashed line "
        "is the linear code's PSNR. Front: the qualities in which no trained cell is better and as fast on the phone; "
        "a dotted line in the plot."
    )
    if any(group["untrained"] for group in groups):
        text += (
            " Cells marked as not trained, hollow in the plots, lie below that line or still gained more than "
            f"{GAIN} dB in the last quarter of their training: they show how far training went, not what the "
            "compression costs, and none of them is called best."
        )
    return text


def _of_samples(groups: Sequence[Row]) -> str:
    text = (
        f"A lower {LOSS.heading} means latents that are easier to diffuse, among VAEs of one compression; latents of "
        "other strides and channels have losses on other scales. "
    )
    if judge(groups) is None:
        return f"{text}Nothing here compares samples of different compressions, so no compression is called best."
    if any(group[KVD.key]["mean"] is not None for group in groups):
        text += (
            "KVD and FVD are of the 400 logits of I3D against the real clips of the captions. FVD is biased upward by "
            "few clips: compare values of equal n alone. KVD is not biased by them."
        )
    return text


def _qualities(groups: Sequence[Row], columns: Sequence[Column]) -> Table:
    shown = [column for column in columns if any(group[column.key]["mean"] is not None for group in groups)]
    lines = [
        [
            group["compression"],
            group["objective"],
            f"{group['ratio']:g}:1",
            f"no: {group['untrained']}" if group["untrained"] else "yes",
            ", ".join(group.get("front", ())) or "–",
            *(column.text(group) for column in shown),
        ]
        for group in groups
    ]
    heads = ["compression", "objective", "ratio", "trained", "front", *(column.heading for column in shown)]
    return Table(heads, lines)


def _differences(results: Sequence[Row]) -> list[Block]:
    """PSNR of each cell less that of the first of its seed and compression, or of its seed, on the same clips."""
    firsts: dict[tuple[Any, ...], Row] = {}
    lines: list[list[Cell]] = []
    for result in results:
        of_all = firsts.setdefault((result["seed"],), result)
        first = firsts.setdefault((result["seed"], result["compression"]), result)
        if result is of_all:
            continue
        first = of_all if result is first else first
        before, after = (np.array(each["psnr_by_clip"], np.float64) for each in (first, result))
        compared = compare(before, after)
        verdict = Marked("differs", compared.difference > 0) if compared.differs else "not told apart"
        interval = f"{compared.low:+.2f} to {compared.high:+.2f}"
        lines.append([result["name"], first["name"], f"{compared.difference:+.2f}", interval, compared.n, verdict])
    heads = ["cell", "less", "PSNR (dB)", "95 % interval", "clips", ""]
    return [Table(heads, lines, "Paired differences on the same clips.")] if lines else []


def _failed(failed: Mapping[str, str]) -> Table:
    return Table(["cell", "error"], [list(item) for item in failed.items()])


def _cost_table(groups: Sequence[Row]) -> Table:
    columns = [
        *("compression", "tokens", "server step, TFLOP", "mobile step, TFLOP", "decoder, GFLOP a frame"),
        *("phone: step, ms", "decoder, ms", "clip, s", "decoder, MB"),
        *("VAE training, PFLOP", "transformer training, PFLOP", "VAE"),
    ]
    lines = {
        group["compression"]: [
            group["compression"],
            group["tokens"],
            group["server_step_flops"] / 1e12,
            group["mobile_step_flops"] / 1e12,
            group["decoder_flops_per_frame"] / 1e9,
            *(group[key] for key in PHONE_COSTS),
            group["vae_flops"] / 1e15,
            group["dit_flops"] / 1e15,
            group["network"],
        ]
        for group in groups
    }
    return Table(columns, list(lines.values()))


def _spectrum(results: Sequence[Row]) -> list[Block]:
    curves = {
        result["name"]: (np.linspace(0, 1, len(curve)), np.asarray(curve))
        for result in results[:6]
        if len(curve := result["spectrum"]["latents"]) > 1
    }
    title, x_label = "spectrum of the latents", "position in zig-zag order"
    return [Curves(title, curves, x_label, "amplitude", log_y=True)] if curves else []
