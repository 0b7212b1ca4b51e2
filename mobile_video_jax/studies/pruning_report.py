"""Report of the study of pruning: tables for programs, plots and a page for people."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.report.blocks import Picture, Report, Section, Table
from mobile_video_jax.report.figures import panels, save_figure
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.chain import TEACHER
from mobile_video_jax.studies.pruning import cells
from mobile_video_jax.studies.pruning_claims import RANDOM, AgainstDraws, Difference, against_draws, differences
from mobile_video_jax.studies.shrinking_config import PruningStudy
from mobile_video_jax.studies.table import Column, Row, grouped, write_tables

LOSS = Column("loss", "held-out velocity loss", "{:.4f}")
SIZES = ("blocks", "heads", "cross_heads", "ffn")
PLOT = "recovery.png"


def write_pruning_study(name: str, study: PruningStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json, recovery.png and report.html; returns what a program wants first."""
    rows = [row for result in results for row in table_rows(result)]
    groups, beside, pairs = summary(rows), against_draws(rows), differences(rows)
    write_tables(name, rows, groups, out)
    if rows:
        _plot(rows, out / PLOT)
        write_report(out / "report.html", _page(name, study, results, groups, beside, pairs, out))
    last = [group for group in groups if group["share"] == max(g["share"] for g in groups) and group["arm"] != TEACHER]
    best = min(last, key=lambda group: (group["kept"], group["loss"]["mean"]), default=None)
    label = f"{best['arm']} at {best['kept']:.0%}" if best else None
    return {"out": str(out), "cells": len(cells(study)), "finished": len(results), "best": label}


def table_rows(result: Row) -> list[Row]:
    """A row for each measurement of a cell; `share` is that of the teacher's steps."""
    kept, steps = result.get("kept", 1.0), result.get("teacher_steps")
    shared = {
        "arm": result["arm"],
        "seed": result["seed"],
        "kept": kept,
        "repeat": result.get("repeat", 0),
        "parameters": result["parameters"],
        **{key: result.get("sizes", {}).get(key) for key in SIZES},
        "kd_loss": result.get("kd_loss"),
    }
    accuracy = result.get("accuracy") or ({"all": result["right"]} if result.get("right") else {})
    rows = [
        {**shared, "share": round(point["step"] / steps, 4) if steps else 0.0, "loss": point["loss"]}
        for point in result["curve"]
    ]
    return [*rows[:-1], {**rows[-1], **accuracy}]


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean and deviation over repeats of each arm, budget and point of recovery."""
    return [
        {key: members[0][key] for key in ("arm", "kept", "share", "parameters", *SIZES)}
        | {"seeds": len(members), LOSS.key: LOSS.spread(members)}
        for members in grouped(rows, lambda row: (row["arm"], row["kept"], row["share"]))
    ]


def _page(
    name: str,
    study: PruningStudy,
    results: Sequence[Row],
    groups: Sequence[Row],
    beside: Sequence[AgainstDraws],
    pairs: Sequence[Difference],
    out: Path,
) -> Report:
    teachers = [result for result in results if result["arm"] == TEACHER]
    facts = {
        "teacher": f"{study.dit.transformer.depth} blocks of width {study.dit.transformer.width}; "
        + ", ".join(
            f"{result['steps']} steps, {result['right'] or 0:.1%} of {study.samples} samples right, "
            f"loss {result['curve'][-1]['loss']:.4f}"
            for result in teachers
        ),
        "recovery": f"{study.recovery:.0%} of the teacher's steps, {study.recover.batch_size} clips a step, "
        f"learning rate {study.recover.optimizer.learning_rate:g} ({study.recover.optimizer.schedule})",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    lead = (
        "One transformer pruned to equal budgets by several choices of units, and recovered alike. The loss is that of "
        "the velocity on held-out clips, with the same noise for all."
    )
    sections = [
        Section("Recovery", "Mean, and deviation over repeats.", [_recovery(groups), Picture("", out / PLOT)]),
        Section("Against random draws", DRAWS_TEXT, [_draws(beside)] if beside else []),
        Section("In pairs", PAIRS_TEXT, [_pairs(pairs)] if pairs else []),
    ]
    return Report(f"Study: {name}", lead, facts, sections)


DRAWS_TEXT = (
    "Each way of choosing units beside random choices of the same sizes: how many draws end with a greater loss, and "
    "the probability of such a rank by chance."
)
PAIRS_TEXT = (
    "Differences of loss between two ways, with the same clips for calibration, batches and noise; 95 % intervals over "
    "repeats by Student's t. Below 0 the first is better."
)


def _recovery(groups: Sequence[Row]) -> Table:
    """A row an arm and budget, a column a point of recovery."""
    shares = sorted({group["share"] for group in groups})
    rows: list[list[str | int | float]] = []
    for members in grouped(groups, lambda group: (group["kept"], group["arm"])):
        texts = {group["share"]: LOSS.text(group) for group in members}
        first = members[0]
        sizes = ["–" if first[key] is None else first[key] for key in ("blocks", "heads", "ffn")]
        rows.append([first["arm"], f"{first['kept']:.0%}", first["parameters"], *sizes, first["seeds"]])
        rows[-1] += [texts.get(share, "–") for share in shares]
    columns = ["way", "budget", "parameters", "blocks", "heads", "FFN", "cells"]
    return Table([*columns, *(f"{share:.1%}" for share in shares)], rows, "Shares are of the teacher's steps.")


def _draws(beside: Sequence[AgainstDraws]) -> Table:
    rows = [
        [
            x.arm,
            *(f"{share:.1%}" for share in (x.kept, x.share)),
            *(f"{loss:.4f}" for loss in (x.loss, x.least_draw, x.mean_draw)),
            f"{x.below} of {x.draws}",
            f"{x.p:.3f}",
        ]
        for x in beside
    ]
    columns = ["way", "budget", "of the teacher's steps", "loss", "least draw", "mean draw", "draws above", "p"]
    return Table(columns, rows)


def _pairs(pairs: Sequence[Difference]) -> Table:
    rows: list[list[str | int | float]] = [
        [
            f"{x.first} − {x.second}",
            *(f"{share:.1%}" for share in (x.kept, x.share)),
            f"{x.mean:+.4f}",
            "–" if x.low is None or x.high is None else f"{x.low:+.4f} to {x.high:+.4f}",
            x.repeats,
        ]
        for x in pairs
    ]
    return Table(["ways", "budget", "of the teacher's steps", "difference", "95 % interval", "repeats"], rows)


def _plot(rows: Sequence[Row], path: Path) -> None:
    """Loss against recovery, a panel a budget: draws in grey, means of the other arms in colours."""
    budgets = sorted({row["kept"] for row in rows if row["kept"] < 1})
    teacher = [row["loss"] for row in rows if row["arm"] == TEACHER]
    figure, axes = panels(max(1, len(budgets)), width=6 * max(1, len(budgets)))
    for panel, kept in zip(axes, budgets, strict=False):
        for members in grouped([row for row in rows if row["kept"] == kept], lambda row: row["arm"]):
            arm = members[0]["arm"]
            for curve in grouped(members, lambda row: (row["seed"], row["repeat"])) if arm == RANDOM else []:
                panel.plot([row["share"] for row in curve], [row["loss"] for row in curve], color="#BBBBBB", lw=0.8)
            points = grouped(members, lambda row: row["share"])
            means = [float(np.mean([row["loss"] for row in point])) for point in points]
            panel.plot([point[0]["share"] for point in points], means, marker="o", ms=3, label=arm)
        if teacher:
            panel.axhline(float(np.mean(teacher)), ls=":", color="black")
        panel.set_yscale("log")
        panel.set_title(f"{kept:.0%} of the blocks' parameters")
        panel.set_xlabel("recovery, share of the teacher's steps")
    axes[0].set_ylabel(LOSS.heading)
    axes[0].legend(frameon=False, fontsize=7)
    save_figure(figure, path)
