"""The study of elastic networks: what a width loses, or gains, by sharing its weights with others."""

import dataclasses
from pathlib import Path
from typing import Any

from mobile_video_jax.dit.elastic import width_config, width_name
from mobile_video_jax.evaluate.alignment import generate_samples
from mobile_video_jax.metrics.accuracy import ALL, accuracies
from mobile_video_jax.models.run import Run
from mobile_video_jax.prune.width import slice_run
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.elastic import ElasticStage
from mobile_video_jax.studies.chain import TEACHER, Cells, cells_of, run_chain_study, teacher_config, teacher_run
from mobile_video_jax.studies.network_config import ElasticStudy
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics

ALONE = "alone"


def cells(study: ElasticStudy) -> Cells:
    """The cells by name: of each seed the whole network alone, the widths alone, and an elastic network of each arm."""
    return cells_of(study, (TEACHER,), study.arms)


def plan_elastic(study: ElasticStudy) -> list[dict[str, Any]]:
    """Cost of every cell in FLOPs of training, counted without running anything."""
    costs = {TEACHER: DitStage(study.dit).cost().flops * study.dit.steps}
    for arm in study.arms:
        if arm == "alone":
            costs[arm] = sum(DitStage(x).cost().flops * x.steps for x in _alone(study, study.dit).values())
        else:
            config = dataclasses.replace(study.elastic, balance=arm)
            costs[arm] = ElasticStage(config).cost().flops * config.steps
    return [{"name": name, "train_flops": costs[arm]} for name, (arm, _) in cells(study).items()]


def run_elastic_study(study: ElasticStudy, out: Path, *, worker: int = 0, workers: int = 1) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are."""

    def run(arm: str, seed: int, folder: Path) -> dict[str, Any]:
        if arm == TEACHER:
            trained = {1.0: teacher_run(out, seed)}
        elif arm == ALONE:
            trained = _alone_runs(study, seed, out, folder)
        else:
            return {"widths": _elastic(study, arm, seed, out, folder)}
        return {"widths": {width_name(width): _measured(study, made, _loss(made)) for width, made in trained.items()}}

    return run_chain_study(study, cells(study), out, run, worker=worker, workers=workers)


def _alone(study: ElasticStudy, whole: DitTraining) -> dict[float, DitTraining]:
    """The trainings of each width by itself."""
    models = {width: width_config(whole.transformer, width) for width in study.elastic.widths}
    return {width: dataclasses.replace(whole, model=model) for width, model in models.items()}


def _alone_runs(study: ElasticStudy, seed: int, out: Path, folder: Path) -> dict[float, Path]:
    configs = _alone(study, teacher_config(study, out, seed))
    for width, config in configs.items():
        train(DitStage(config), folder / width_name(width))
    return {width: folder / width_name(width) for width in configs}


def _elastic(study: ElasticStudy, arm: Any, seed: int, out: Path, folder: Path) -> dict[str, Any]:
    """The results of an elastic network's widths, each sliced into a run of its own."""
    config = dataclasses.replace(study.elastic, balance=arm, seed=seed, data=str(out / "latents"))
    train(ElasticStage(config), folder / "elastic")
    results = {}
    for width in (1.0, *config.widths):
        name = width_name(width)
        slice_run(Run.open(folder / "elastic"), width, folder / name)
        loss = _loss(folder / "elastic", "eval_loss" if width == 1 else f"eval_loss_{name}")
        results[name] = _measured(study, folder / name, loss)
    return results


def _loss(run: Path, key: str = "eval_loss") -> float:
    """The last held-out velocity loss of a training."""
    return float([line[key] for line in read_metrics(run) if key in line][-1])


def _measured(study: ElasticStudy, run: Path, loss: float) -> dict[str, Any]:
    samples = generate_samples(run, study.world, study.samples, study.sampling)
    return {
        "parameters": Run.open(run).denoiser.describe()["parameters"],
        "loss": loss,
        "right": accuracies(study.world, samples.pairs)[ALL].value,
    }
