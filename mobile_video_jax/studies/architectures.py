"""The study of SnapGen's distillation: what a U-Net gains from a transformer, term by term."""

import dataclasses
from pathlib import Path
from typing import Any

from mobile_video_jax.distill.config import KdWeights
from mobile_video_jax.stages.config import RecoverTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.recover import RecoverStage
from mobile_video_jax.studies.chain import TEACHER, Cells, cells_of, run_chain_study, teacher_run
from mobile_video_jax.studies.shrinking_config import ArchitectureStudy
from mobile_video_jax.studies.trained import measured
from mobile_video_jax.train.loop import train

OUTPUT_ALONE = KdWeights(features=0.0)
POINTS = 4  # measurements of the held-out loss, so that the last quarter's gain tells how far training went
# What an arm changes of the student's training. Each adds one thing to the arm before, but for two controls: `longer`
# learns from data alone for as many steps as cost what those of `output` do, and `constant` balances all times alike.
ARMS: dict[str, dict[str, Any]] = {
    "task": {"balance": "sum", "kd": KdWeights(0.0, 0.0)},
    "longer": {"balance": "sum", "kd": KdWeights(0.0, 0.0)},
    "output": {"balance": "sum", "kd": OUTPUT_ALONE},
    "constant": {"balance": "constant", "kd": OUTPUT_ALONE},
    "scaling": {"balance": "timestep", "kd": OUTPUT_ALONE},
    "features": {"balance": "timestep"},
}


def cells(study: ArchitectureStudy) -> Cells:
    """The cells by name: of each seed the teacher, and a student of each arm."""
    return cells_of(study, (TEACHER,), study.arms)


def plan_architectures(study: ArchitectureStudy) -> list[dict[str, Any]]:
    """Cost of every cell in FLOPs of training, counted without running anything."""
    teacher = {"train_flops": DitStage(study.dit).cost().flops * study.dit.steps}
    costs = {TEACHER: teacher}
    for arm in study.arms:
        costs[arm] = {"train_flops": _step_flops(study, arm) * _steps(study, arm)}
    return [{"name": name, **costs[arm]} for name, (arm, _) in cells(study).items()]


def run_architecture_study(
    study: ArchitectureStudy, out: Path, *, worker: int = 0, workers: int = 1
) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are."""

    def run(arm: str, seed: int, folder: Path) -> dict[str, Any]:
        trained, steps = teacher_run(out, seed), study.dit.steps
        if arm != TEACHER:
            config = student_config(study, arm, seed, out)
            trained, steps = folder / "student", config.steps
            train(RecoverStage.build(config), trained)
        return {"steps": steps, **measured(study, trained)}

    return run_chain_study(study, cells(study), out, run, worker=worker, workers=workers)


def student_config(study: ArchitectureStudy, arm: str, seed: int, out: Path) -> RecoverTraining:
    """The training of an arm's student. Students of one seed have the same batches, noise and teacher."""
    shared: dict[str, Any] = {"data": str(out / "latents"), "teacher": str(teacher_run(out, seed)), "seed": seed}
    steps = _steps(study, arm)
    shared |= {"steps": steps, "eval_every": steps // POINTS, "checkpoint_every": steps}
    return dataclasses.replace(study.student, **shared, **ARMS[arm])


def _steps(study: ArchitectureStudy, arm: str) -> int:
    """Steps of an arm's student, a multiple of its measurements."""
    if arm != "longer":
        return study.student.steps
    ratio = _step_flops(study, "output") / _step_flops(study, "task")
    return round(study.student.steps * ratio / POINTS) * POINTS


def _step_flops(study: ArchitectureStudy, arm: str) -> int:
    config = dataclasses.replace(study.student, teacher_model=study.dit.model, **ARMS[arm])
    return RecoverStage(config).cost().flops
