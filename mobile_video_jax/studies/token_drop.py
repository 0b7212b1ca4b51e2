"""The study of training on some of the tokens: what loss a plain training reaches for which FLOPs, with and without."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from mobile_video_jax.dit.middle import fused
from mobile_video_jax.evaluate.alignment import generate_samples
from mobile_video_jax.metrics.accuracy import ALL, accuracies
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.studies.chain import Cells, cells_of, run_chain_study, teacher_config, teacher_run
from mobile_video_jax.studies.network_config import TokenDropStudy
from mobile_video_jax.studies.trained import measured
from mobile_video_jax.train.loop import train

PLAIN = "plain"
# Shares of the plain training's FLOPs.
SHARES = {PLAIN: 1.0, "plain-half": 0.5, "bypass": 1.0, "fusion": 1.0, "bypass-half": 0.5, "fusion-half": 0.5}


def cells(study: TokenDropStudy) -> Cells:
    """The cells by name: of each seed the plain training, then the arms."""
    return cells_of(study, (PLAIN,), study.arms)


def plan_token_drop(study: TokenDropStudy) -> list[dict[str, Any]]:
    """Cost of every cell in FLOPs of training, counted without running anything."""
    costs = {arm: _total(trainings(study, study.dit, arm)) for arm in (PLAIN, *study.arms)}
    return [{"name": name, "train_flops": costs[arm]} for name, (arm, _) in cells(study).items()]


def run_token_drop_study(
    study: TokenDropStudy, out: Path, *, worker: int = 0, workers: int = 1
) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are."""

    def run(arm: str, seed: int, folder: Path) -> dict[str, Any]:
        phases, trained = trainings(study, teacher_config(study, out, seed), arm), teacher_run(out, seed)
        if arm != PLAIN:
            for i, phase in enumerate(phases):
                source = str(trained) if i else ""
                trained = folder / ("some-tokens" if phase.token_drop else "trained")
                train(DitStage(dataclasses.replace(phase, init_from=source)), trained)
        result = {"steps": sum(phase.steps for phase in phases), "train_flops": _total(phases)}
        return result | measured(study, trained) | _by_path(study, trained, phases[-1])

    return run_chain_study(study, cells(study), out, run, worker=worker, workers=workers)


def trainings(study: TokenDropStudy, plain: DitTraining, arm: str) -> list[DitTraining]:
    """The phases of an arm's training, which take its share of the plain one's FLOPs.

    With dropped tokens there are two: on some tokens at the peak rates, then on all of them with the decay to 0.
    """
    flops = SHARES[arm] * plain.steps * _flops(plain)
    if arm in (PLAIN, "plain-half"):
        return [_for_steps(plain, round(flops / _flops(plain)))]
    model = fused(plain.transformer) if arm.startswith("fusion") else plain.transformer
    whole = dataclasses.replace(plain, model=model, path_drop=study.path_drop)
    constant = dataclasses.replace(plain.optimizer, schedule="constant")
    some = dataclasses.replace(whole, token_drop=study.token_drop, optimizer=constant)
    last = max(1, round(study.whole * flops / _flops(whole)))
    return [_for_steps(some, round((1 - study.whole) * flops / _flops(some))), _for_steps(whole, last)]


def _for_steps(config: DitTraining, steps: int) -> DitTraining:
    """A training of so many steps, whose held-out loss is measured four times."""
    quarter = max(1, steps // 4)
    return dataclasses.replace(config, steps=steps, eval_every=quarter, checkpoint_every=quarter)


def _total(phases: list[DitTraining]) -> int:
    return sum(_flops(phase) * phase.steps for phase in phases)


@functools.lru_cache(16)
def _flops(config: DitTraining) -> int:
    return DitStage(config).cost().flops


def _by_path(study: TokenDropStudy, run: Path, training: DitTraining) -> dict[str, Any]:
    """The share of samples right when guided by the dropped path, for networks that were trained for it."""
    if not training.path_drop:
        return {"right_by_path": None}
    sampling = dataclasses.replace(study.sampling, path_drop=True)
    samples = generate_samples(run, study.world, study.samples, sampling)
    return {"right_by_path": accuracies(study.world, samples.pairs)[ALL].value}
