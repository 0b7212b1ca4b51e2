"""Report of the study of rewards: tables for programs, and a page with both curves, reward and hidden truth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.report.blocks import Picture, Report, Section, Table
from mobile_video_jax.report.figures import panels, save_figure
from mobile_video_jax.report.page import write_report
from mobile_video_jax.studies.clip_quality import DECODED
from mobile_video_jax.studies.pairs import difference, hits_by_arm
from mobile_video_jax.studies.reward import BASE, FLOW, cells
from mobile_video_jax.studies.reward_config import RewardStudy
from mobile_video_jax.studies.table import Column, Row, grouped, write_tables

HIDDEN, REWARD = Column("hidden", "hidden accuracy"), Column("reward", "reward")
DISTANCE = Column("distance", "kernel distance", "{:.3f}")
MEASURED = (HIDDEN, REWARD, DISTANCE, Column("motion", "motion energy", "{:.2f}"))
PLOT = "curves.png"


def write_reward_study(name: str, study: RewardStudy, results: Sequence[Row], out: Path) -> Row:
    """Writes table.csv, table.json, curves.png and report.html; returns what a program wants first."""
    rows = [table_row(result) for result in results]
    groups = [
        {"arm": members[0]["arm"], "seeds": len(members), **{c.key: c.spread(members) for c in MEASURED}}
        for members in grouped(rows, lambda row: row["arm"])
    ]
    write_tables(name, rows, groups, out)
    if rows:
        _plot(results, out / PLOT)
        write_report(out / "report.html", _page(name, study, results, groups, out))
    models = [group for group in groups if group["arm"] != DECODED]
    best = max(models, key=lambda group: group[HIDDEN.key]["mean"], default=None)
    return {"out": str(out), "cells": len(cells(study)), "finished": len(results), "best": best and best["arm"]}


def table_row(result: Row) -> Row:
    """The row of a cell: `hidden` is the detector's share of samples right in all, `reward` the last of its curve."""
    last = result["curve"][-1]["reward"] if result["curve"] else None
    row = {"arm": result["arm"], "seed": result["seed"], "hidden": result["accuracy"]["all"], "reward": last}
    return (
        row
        | {key: result[key] for key in ("distance", "motion")}
        | {f"right_{k}": v for k, v in result["accuracy"].items()}
    )


def gains(results: Sequence[Row]) -> list[list[str]]:
    """Points of hidden accuracy of each tuned model less its seed's base's, and less plain training's."""
    hits = hits_by_arm(results, "hits")
    arms = dict.fromkeys(arm for arm, _ in hits if arm not in (DECODED, BASE))
    return [[arm, difference(hits, arm, BASE), "" if arm == FLOW else difference(hits, arm, FLOW)] for arm in arms]


def _page(name: str, study: RewardStudy, results: Sequence[Row], groups: Sequence[Row], out: Path) -> Report:
    facts = {
        "tuning": f"{study.tuning.steps} steps of {study.tuning.batch_size} clips",
        "cells": f"{len(results)} of {len(cells(study))} finished",
        "samples": f"{study.samples} held-out prompts a model",
        "hardware": hardware(),
        "commit": git_revision(),
    }
    floors = [result["floor"] for result in results]
    mean, std = (float(np.mean([floor[key] for floor in floors])) for key in ("mean", "std"))
    text = (
        "Hidden accuracy is the detector's, from which no gradient comes; the reward is that of the arm, on held-out "
        "captions. Decoded are held-out real clips after the VAE, the best that samples can be. Halves of the real "
        f"clips are {mean:.3f} ± {std:.3f} apart: smaller differences say nothing."
    )
    columns = ["model", *(column.heading for column in MEASURED)]
    lines = [[group["arm"], *(column.text(group) for column in MEASURED)] for group in groups]
    caption = (
        "Points of hidden accuracy on the same prompts and noise, with 95 % intervals over seeds, or over prompts."
    )
    paired = Table(["model", "less the base", "less plain training"], gains(results), caption)
    plot = Picture("Reward (dashed) and hidden accuracy (solid) while a model is tuned.", out / PLOT)
    lead = "One transformer of each seed, fine-tuned by a latent reward or a critic of decoded frames in several ways."
    return Report(f"Study: {name}", lead, facts, [Section("Quality", text, [Table(columns, lines), paired, plot])])


def _plot(results: Sequence[Row], path: Path) -> None:
    """Both curves of every arm, a mean over seeds."""
    figure, (axes,) = panels(1, width=8)
    for i, members in enumerate(grouped([r for r in results if r["curve"]], lambda result: result["arm"])):
        steps = [point["step"] for point in members[0]["curve"]]
        for key, style in (("hidden", "-"), ("reward", "--")):
            values = [[point[key] for point in member["curve"]] for member in members]
            if all(value is not None for row in values for value in row):
                label = members[0]["arm"] if key == "hidden" else None
                axes.plot(steps, np.mean(values, axis=0), style, color=f"C{i}", label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("share of clips right")
    axes.legend(frameon=False, ncols=2)
    save_figure(figure, path)
