"""Report of the study of attention: tables for programs, a plot and a page for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.report.blocks import Cell, Picture, Report, Section, Table
from mobile_video_jax.report.figures import panels, save_figure
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.attention import cells
from mobile_video_jax.studies.attention_claims import KEEP, beside_random, kept
from mobile_video_jax.studies.attention_layouts import FULL, RANDOM, SANDWICH
from mobile_video_jax.studies.clip_quality import DECODED
from mobile_video_jax.studies.network_config import AttentionStudy
from mobile_video_jax.studies.table import Column, Row, grouped, write_tables

NAMES = {
    DECODED: "real clips, decoded",
    FULL: "full attention",
    "linear": "linear attention alone",
    "lcha": "LCHA",
    "lcha-softmax": "LCHA, every fourth block softmax",
    "chunked": "chunked, one normaliser",
    SANDWICH: "sandwich by search",
}
RIGHT, PHONE = Column("right", "samples right"), Column("phone_milliseconds", "phone, ms", "{:.0f}")
COLUMNS = (
    Column("loss", "held-out loss", "{:.4f}"),
    Column("gain", "of it in the last quarter", "{:.4f}"),
    RIGHT,
    Column("distance", "kernel distance", "{:.3f}"),
    Column("floor", "of real halves", "{:.3f}"),
    Column("floor_deviation", "its deviation", "{:.3f}"),
    Column("motion", "motion, of real", "{:.2f}"),
    PHONE,
    Column("steps", "steps", "{:.0f}"),
)
PLOT = "quality.png"


def write_attention_study(name: str, study: AttentionStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json, quality.png and report.html; returns what a program wants first."""
    rows = [table_row(study, result) for result in results]
    groups = summary(study, rows)
    write_tables(name, rows, groups, out)
    if rows:
        _plot(groups, out / PLOT)
        write_report(out / "report.html", _page(name, study, results, groups, out))
    claims = {each.arm: {"ratio": each.ratio, "low": each.low, "high": each.high} for each in kept(results)}
    return {"out": str(out), "cells": len(cells(study)), "finished": len(results), "kept": claims}


def table_row(study: AttentionStudy, result: Row) -> Row:
    """A cell's figures; those of training are None where nothing is trained."""
    losses = result.get("losses") or [None, None]
    same = ("layout", "parameters", "phone_milliseconds", "train_seconds", "trained")
    drift, share = result.get("drift", {}), result.get("kept", {})
    return {
        **{key: result[key] for key in ("arm", "seed", "distance", "motion")},
        **{key: result.get(key) for key in same},
        "steps": float(result["steps"]) if "steps" in result else None,
        "loss": losses[-1],
        "gain": losses[-2] - losses[-1] if len(losses) > 1 and losses[-1] is not None else None,
        "right": sum(result["hits"]) / len(result["hits"]),
        "floor": result["floor"]["mean"],
        "floor_deviation": result["floor"]["std"],
        "drift_floor": result["drift_floor"]["std"] if "drift_floor" in result else None,
        **{f"drift_{k}": drift.get(str(k)) for k in study.windows[1:]},
        **{f"kept_{k}": share.get(str(k)) for k in study.windows},
    }


def drift_columns(study: AttentionStudy) -> list[Column]:
    """Columns of the windows of streams."""
    kept_in = [Column(f"kept_{k}", f"object right in window {k}") for k in study.windows]
    drifts = [Column(f"drift_{k}", f"distance of window {k}", "{:.3f}") for k in study.windows[1:]]
    return [*kept_in, *drifts, Column("drift_floor", "deviation of halves", "{:.3f}")]


def summary(study: AttentionStudy, rows: Sequence[Row]) -> list[Row]:
    """Mean and deviation over seeds of each arm."""
    return [
        {"arm": members[0]["arm"], "layout": members[0]["layout"], "seeds": len(members)}
        | {"trained": all(row["trained"] is not False for row in members)}
        | {column.key: column.spread(members) for column in (*COLUMNS, *drift_columns(study))}
        for members in grouped(rows, lambda row: row["arm"])
    ]


def arm_name(arm: str) -> str:
    """An arm for people."""
    return NAMES.get(arm) or f"random layout {arm.removeprefix(f'{RANDOM}-')}, of the sandwich's time"


def _page(name: str, study: AttentionStudy, results: Sequence[Row], groups: Sequence[Row], out: Path) -> Report:
    facts = {
        "training": f"conversion of {study.convert.steps} steps, and training, with the FLOPs of {study.tune.steps} "
        f"steps of {study.tune.batch_size} clips with full attention",
        "start": f"causal full attention after {study.dit.steps} steps of {study.dit.batch_size} clips",
        "search": f"for {study.budget:.0%} of full attention's time on the phone",
        "samples": f"{study.samples} streams for held-out prompts, guidance {study.sampling.guidance:g}, "
        f"{study.sampling.steps} steps a chunk; {study.streamed} of them to window {max(study.windows)}",
        "phone": f"estimated, not measured: the layout stretched over {study.phone.transformer.depth} blocks of width "
        f"{study.phone.transformer.width} on {study.phone.clip}, one call for a whole clip",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    lead = (
        "Kinds of attention and layouts in place of one causal transformer's full attention, at equal training FLOPs."
    )
    sections = [
        Section(
            "Quality", "Mean, and deviation over seeds.", [*_quality(groups), Picture("By phone time.", out / PLOT)]
        ),
        Section("Claims", "", _claims(results)),
        Section("Streams beyond the training length", "", [_drift(study, groups)]),
        Section(
            "Layouts", "", [Table(["model", "blocks"], [[arm_name(g["arm"]), g["layout"] or "–"] for g in groups])]
        ),
    ]
    return Report(f"Study: {name}", lead, facts, sections)


def _quality(groups: Sequence[Row]) -> list[Any]:
    lines: list[list[Cell]] = [
        [arm_name(group["arm"]), *(column.text(group) for column in COLUMNS), "" if group["trained"] else "not trained"]
        for group in groups
    ]
    caption = (
        "Not trained: no more samples are right than by chance, with 95 % confidence. Distances are of the first "
        "window from held-out real clips, on features of the transformer that all start from."
    )
    return [Table(["model", *(column.heading for column in COLUMNS), ""], lines, caption)]


def _claims(results: Sequence[Row]) -> list[Any]:
    ratios: list[list[Cell]] = [
        [arm_name(each.arm), f"{each.ratio:.3f} ({each.low:.3f} to {each.high:.3f})", each.verdict, f"{each.phone:.2f}"]
        for each in kept(results)
    ]
    pairs: list[list[Cell]] = [
        [arm_name(each.arm), each.right, ", ".join(f"{loss:+.4f}" for loss in each.losses)]
        for each in beside_random(results)
    ]
    headings = ["model", "right samples, of full attention's", f"keeps {KEEP:.0%}", "phone time, of full attention's"]
    return [
        Table(headings, ratios, "With 95 % intervals over prompts."),
        Table(["the sandwich, less", "points of samples right", "held-out loss, by seed"], pairs),
    ]


def _drift(study: AttentionStudy, groups: Sequence[Row]) -> Table:
    columns, streams = drift_columns(study), [group for group in groups if group["arm"] != DECODED]
    lines: list[list[Cell]] = [
        [arm_name(group["arm"]), *(column.text(group) for column in columns)] for group in streams
    ]
    caption = (
        "Windows have a training clip's frames; window k begins after k - 1 of them. Object: colour and shape. "
        "Distances are from the first window of the same streams; a motion that ends at the border is in them too."
    )
    return Table(["model", *(column.heading for column in columns)], lines, caption)


def _plot(groups: Sequence[Row], path: Path) -> None:
    figure, [axes] = panels(1, width=7)
    for group in groups:
        if (x := group[PHONE.key]["mean"]) is not None:
            y, deviation = (group[RIGHT.key][part] for part in ("mean", "std"))
            marker = "x" if group["arm"].startswith(RANDOM) else "o"
            axes.errorbar([x], [y], [deviation], fmt=marker, capsize=3, label=group["arm"])
    axes.set(xlabel="phone, estimated ms of one call", ylabel=RIGHT.heading)
    axes.legend(frameon=False)
    save_figure(figure, path)
