"""The study of SnapGen++'s ladder: what each step from a plain transformer to three sparse stages costs and gains."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.ladder import BASE, rung
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.studies.chain import Cells, cells_of, run_chain_study, teacher_config, teacher_run
from mobile_video_jax.studies.network_config import LadderStudy
from mobile_video_jax.studies.trained import measured
from mobile_video_jax.train.loop import train

SHALLOW = "shallow"  # a control: the base with as many blocks as cost what the enhanced network costs


def cells(study: LadderStudy) -> Cells:
    """The cells by name: of each seed the base, then the arms."""
    return cells_of(study, (BASE,), study.arms)


def plan_ladder(study: LadderStudy) -> list[dict[str, Any]]:
    """Cost of every cell in FLOPs of training, counted without running anything."""
    costs = {arm: _flops(_trained_as(study.dit, arm)) * study.dit.steps for arm in (BASE, *study.arms)}
    return [{"name": name, "train_flops": costs[arm]} for name, (arm, _) in cells(study).items()]


def run_ladder_study(study: LadderStudy, out: Path, *, worker: int = 0, workers: int = 1) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are."""

    def run(arm: str, seed: int, folder: Path) -> dict[str, Any]:
        trained, config = teacher_run(out, seed), _trained_as(teacher_config(study, out, seed), arm)
        if arm != BASE:
            trained = folder / "trained"
            train(DitStage(config), trained)
        return {
            "step_flops": _flops(config),
            "blocks": len(config.transformer.block_shapes),
            **measured(study, trained),
            **_on_phone(study.phone, arm),
        }

    return run_chain_study(study, cells(study), out, run, worker=worker, workers=workers)


def _trained_as(base: DitTraining, arm: str) -> DitTraining:
    """The training of an arm's network, with the steps, batches and noise of the base."""
    return dataclasses.replace(base, model=_network(base, arm))


def _network(base: DitTraining, arm: str) -> DitConfig:
    if arm != SHALLOW:
        return rung(base.transformer, arm)
    enhanced = _flops(dataclasses.replace(base, model=rung(base.transformer, "enhanced")))
    depths = [dataclasses.replace(base.transformer, depth=depth) for depth in range(1, base.transformer.depth + 1)]
    return min(depths, key=lambda model: abs(_flops(dataclasses.replace(base, model=model)) - enhanced))


def _flops(config: DitTraining) -> int:
    return DitStage(config).cost().flops


@functools.lru_cache(16)
def _on_phone(base: DitTraining, arm: str) -> dict[str, Any]:
    """Parameters and milliseconds of a call, estimated, of an arm at the phone's size."""
    costs = Denoiser(_trained_as(base, arm)).inspect()
    return {
        "phone_parameters": costs["parameters"]["total"],
        "phone_milliseconds": 1e3 * costs["phone_seconds"],
    }
