"""The study of attention: which kinds in which layout keep the quality of full attention, in how much phone time."""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.accuracy import ALL, chance, wilson_interval
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.search.space import Layout, as_text
from mobile_video_jax.stages.config import ConvertTraining, DitTraining
from mobile_video_jax.stages.convert import ConvertStage
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.studies.attention_layouts import (
    FULL,
    KINDS,
    RANDOM,
    SANDWICH,
    check_budget,
    layout_of,
    phone_milliseconds,
    repeated_layout,
    search_layouts,
)
from mobile_video_jax.studies.chain import Cells, cells_of, run_chain_study, teacher_run
from mobile_video_jax.studies.clip_quality import DECODED, ClipQuality
from mobile_video_jax.studies.network_config import AttentionStudy
from mobile_video_jax.studies.stream_quality import StreamQuality
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics

POINTS = 4  # evaluations of a training, so that it is seen whether the last quarter still changes the loss


def cells(study: AttentionStudy) -> Cells:
    """The cells by name, seed after seed: decoded real clips, then the arms, the random layouts one by one."""
    numbered = [f"{RANDOM}-{i + 1}" for i in range(study.search.floor)]
    arms = [name for arm in study.arms for name in (numbered if arm == RANDOM else [arm])]
    return cells_of(study, (DECODED,), arms)


def run_attention_study(study: AttentionStudy, out: Path, *, worker: int = 0, workers: int = 1) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are.

    Raises UserError for budgets of phone time and of training that no layout keeps, before anything is trained.
    """
    for arm in KINDS.keys() & set(study.arms):
        tuning_steps(study, repeated_layout(arm, study.dit.transformer.depth))
    if searched := {SANDWICH, RANDOM} & set(study.arms):
        check_budget(study)

    def run(arm: str, seed: int, folder: Path) -> dict[str, Any]:
        if arm == DECODED:
            quality = ClipQuality(study, out, teacher_run(out, seed))
            return quality(*quality.of_decoded())
        layout = layout_of(study, arm, seed, out)
        return {"layout": as_text(layout)} | _measured(study, layout, seed, out, folder)

    def also(seed: int) -> None:
        if searched:
            search_layouts(study, seed, out)

    return run_chain_study(study, cells(study), out, run, also=also, worker=worker, workers=workers)


def plan_attention(study: AttentionStudy) -> list[dict[str, Any]]:
    """FLOPs of every cell, counted without running anything: of training, at most of samples, and of the search."""
    forward = Denoiser(study.dit).inspect()["flops"]["total"]
    windows = study.samples + study.streamed * (max(study.windows) - 1)
    samples = windows * (study.sampling.steps + 1) * (1 if study.sampling.guidance == 1 else 2) * forward
    rows = []
    for name, (arm, _) in cells(study).items():
        trained = 0 if arm == DECODED else budget(study)
        row = {"name": name, "train_flops": trained, "sample_flops": 0 if arm == DECODED else samples}
        rows.append(row | {"search_flops": _search_flops(study) if arm == SANDWICH else 0})
    return rows


def _search_flops(study: AttentionStudy) -> int:
    """FLOPs of distilling the search's variants, each counted as a step of full attention and of its teacher."""
    config = study.search
    variants = len(config.kinds) * len(config.resolutions) - 1
    step = step_flops(dataclasses.replace(study.dit, batch_size=config.batch_clips))
    return round(variants * config.distill_steps * step * 4 / 3)


def budget(study: AttentionStudy) -> int:
    """FLOPs that an arm trains for, conversion included."""
    return study.tune.steps * step_flops(tuning(study, repeated_layout(FULL, study.dit.transformer.depth)))


def converting(study: AttentionStudy, layout: Layout) -> ConvertTraining:
    """The conversion to a layout, without its teacher."""
    places = tuple((kind, resolution) for kind, resolution in layout)
    model = dataclasses.replace(study.dit.transformer, layout=places, scan=False, remat="none")
    return dataclasses.replace(study.convert, model=model, teacher_model=study.dit.model)


def tuning(study: AttentionStudy, layout: Layout) -> DitTraining:
    """The training of a layout after its conversion, with the steps of full attention."""
    converted = layout != repeated_layout(FULL, len(layout))
    model = converting(study, layout).model if converted else study.dit.model
    return dataclasses.replace(study.tune, model=model)


def tuning_steps(study: AttentionStudy, layout: Layout) -> int:
    """The steps that a layout is trained for: conversion and they have the FLOPs of full attention's steps.

    Raises UserError where conversion alone has more.
    """
    left = float(budget(study))
    if layout != repeated_layout(FULL, len(layout)):
        left -= study.convert.steps * step_flops(converting(study, layout))
    if left <= 0:
        raise UserError(
            f"{study.convert.steps} steps of conversion cost more than {study.tune.steps} of training: lower "
            "convert.steps or raise tune.steps"
        )
    return POINTS * max(1, round(left / step_flops(tuning(study, layout)) / POINTS))


@functools.lru_cache(256)
def step_flops(config: DitTraining) -> int:
    """FLOPs of a step of a training."""
    stage = ConvertStage(config) if isinstance(config, ConvertTraining) else DitStage(config)
    return stage.cost().flops


def _measured(study: AttentionStudy, layout: Layout, seed: int, out: Path, folder: Path) -> dict[str, Any]:
    started, steps = time.monotonic(), tuning_steps(study, layout)
    shared: dict[str, Any] = {"data": str(out / "latents"), "seed": seed, "init_from": str(teacher_run(out, seed))}
    if layout != repeated_layout(FULL, len(layout)):
        convert = dataclasses.replace(converting(study, layout), **shared)
        train(ConvertStage.build(convert), folder / "converted")
        shared["init_from"] = str(folder / "converted")
    shared |= {"steps": steps, "eval_every": steps // POINTS, "checkpoint_every": steps}
    train(DitStage(dataclasses.replace(tuning(study, layout), **shared)), folder / "tuned")
    seconds = time.monotonic() - started
    losses = [line["eval_loss"] for line in read_metrics(folder / "tuned") if "eval_loss" in line]
    quality = StreamQuality(study, out, seed)(folder / "tuned")
    hits = quality["hits"]
    return {
        "steps": steps,
        "losses": losses,
        "parameters": Run.open(folder / "tuned").denoiser.describe()["parameters"],
        "phone_milliseconds": phone_milliseconds(study, layout),
        "train_seconds": seconds,
        "trained": wilson_interval(float(np.mean(hits)), len(hits))[0] > chance(study.world)[ALL],
        **quality,
    }
