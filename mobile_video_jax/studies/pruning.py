"""The study of pruning: ways of cutting one transformer down to one budget, each recovered alike."""

import dataclasses
from pathlib import Path
from typing import Any

from mobile_video_jax.distill.config import KdWeights
from mobile_video_jax.evaluate.alignment import generate_samples
from mobile_video_jax.metrics.accuracy import accuracies
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.prune.config import Budget, PruneConfig
from mobile_video_jax.prune.plan import make_plan, planned_shapes, scoring_flops, sizes_of
from mobile_video_jax.prune.run import prune
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.recover import RecoverStage
from mobile_video_jax.studies.chain import TEACHER, Cells, cells_of, run_chain_study, teacher_config, teacher_run
from mobile_video_jax.studies.config import PruningStudy
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics

# What an arm changes of the way of pruning; None trains a model of the same sizes from nothing.
ARMS: dict[str, dict[str, Any] | None] = {
    "tri-level": {},
    "block": {"levels": ("block",)},
    "head": {"levels": ("head",)},
    "channel": {"levels": ("channel",)},
    "random": {"score": "random"},
    "magnitude": {"score": "magnitude"},
    "scratch": None,
}
NO_KD = KdWeights(0.0, 0.0)


def cells(study: PruningStudy) -> Cells:
    """The cells by name, seed after seed: its teacher, then the arms."""
    return cells_of(study, (TEACHER,), study.arms)


def run_pruning_study(study: PruningStudy, out: Path, *, worker: int = 0, workers: int = 1) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are."""
    run = lambda arm, seed, folder: _run_cell(study, arm, seed, out, folder)
    return run_chain_study(study, cells(study), out, run, worker=worker, workers=workers)


def plan_pruning(study: PruningStudy) -> list[dict[str, Any]]:
    """Cost of every cell in FLOPs of training and of scoring, counted without running anything."""
    teacher = Denoiser(study.dit)
    rows = []
    for name, (arm, _) in cells(study).items():
        if arm in (TEACHER, "scratch"):
            trained = study.dit if arm == TEACHER else _small(study, Path(), 0)
            rows.append({"name": name, "train_flops": DitStage(trained).cost().flops * trained.steps})
            continue
        config = _arm_config(study, arm, teacher, 0)
        plan = make_plan(config, teacher)
        sizes = tuple(dataclasses.astuple(shape) for shape in planned_shapes(plan))
        student = dataclasses.replace(study.dit.model, blocks=sizes)
        recover = dataclasses.replace(study.recover, model=student, teacher_model=study.dit.model, block_map=())
        costs = [RecoverStage(dataclasses.replace(recover, kd=kd)).cost().flops for kd in (study.recover.kd, NO_KD)]
        scoring = scoring_flops(config, plan) if config.score == "kd" else 0.0
        rows.append({"name": name, "score_flops": scoring, "train_flops": sum(costs) * recover.steps})
    return rows


def _run_cell(study: PruningStudy, arm: str, seed: int, out: Path, folder: Path) -> dict[str, Any]:
    teacher = teacher_run(out, seed)
    if arm == TEACHER:
        return {"trained": {"plain": _evaluated(study, teacher)}}
    if arm == "scratch":
        train(DitStage(_small(study, out, seed)), folder / "scratch")
        return {"trained": {"plain": _evaluated(study, folder / "scratch")}}
    config = _arm_config(study, arm, Run.open(teacher).denoiser, seed)
    pruned = prune(config, teacher, str(out / "latents"), folder / "pruned")
    trained = {}
    for name, kd in (("kd", study.recover.kd), ("plain", NO_KD)):
        recover = dataclasses.replace(study.recover, kd=kd, seed=seed, data=str(out / "latents"))
        train(RecoverStage.build(dataclasses.replace(recover, init_from=str(folder / "pruned"))), folder / name)
        trained[name] = _evaluated(study, folder / name)
    return {"kd_loss": pruned.losses[pruned.chosen], "before": pruned.held_out["after"], "trained": trained}


def _arm_config(study: PruningStudy, arm: str, teacher: Denoiser, seed: int) -> PruneConfig:
    """The arm's way to the study's budget, or to the smallest model that it can reach."""
    plan = make_plan(study.prune, teacher)
    config = dataclasses.replace(study.prune, seed=seed, **(ARMS[arm] or {}))
    cost, space = plan.space.costs["parameters"], dataclasses.replace(plan.space, levels=config.levels)
    smallest = min(cost.of(shapes) for shapes in space.smallest())
    reached = max(plan.limits["parameters"], smallest) / cost.of(space.units.shapes)
    return dataclasses.replace(config, budget=Budget(parameters=reached * (1 + 1e-9)))


def _small(study: PruningStudy, out: Path, seed: int) -> DitTraining:
    """The tri-level plan's model, trained from nothing for as many steps as the others recover."""
    teacher = teacher_config(study, out, seed)
    sizes = sizes_of(planned_shapes(make_plan(study.prune, Denoiser(teacher))))
    model = dataclasses.replace(teacher.model, depth=sizes["blocks"], heads=sizes["heads"], ffn=sizes["ffn"])
    steps = study.recover.steps
    return dataclasses.replace(teacher, model=model, steps=steps, eval_every=steps, checkpoint_every=steps)


def _evaluated(study: PruningStudy, run: Path) -> dict[str, Any]:
    """Size, held-out velocity loss, and accuracies of samples for held-out prompts."""
    denoiser = Run.open(run).denoiser
    held_out = [line["eval_loss"] for line in read_metrics(run) if "eval_loss" in line]
    samples = generate_samples(run, study.world, study.samples, study.sampling)
    scores = accuracies(study.world, samples.pairs)
    return {
        "parameters": denoiser.describe()["parameters"],
        "sizes": sizes_of(denoiser.config.model.block_shapes),
        "eval_loss": held_out[-1],
        "accuracy": {name: score.value for name, score in scores.items()},
    }
