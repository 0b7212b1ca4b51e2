"""The study of step distillation: one recovered student, taught to generate in few unguided steps in several ways."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

from mobile_video_jax.distill.objective import CRITICS
from mobile_video_jax.models.network_config import as_transformer
from mobile_video_jax.prune.run import prune
from mobile_video_jax.stages.config import DistillTraining
from mobile_video_jax.stages.distill import DistillStage
from mobile_video_jax.stages.distill_recipes import RECIPES
from mobile_video_jax.stages.recover import RecoverStage
from mobile_video_jax.studies.chain import TEACHER, Cells, run_chain_study, teacher_run
from mobile_video_jax.studies.head_quality import head_alone, measure_head
from mobile_video_jax.studies.sample_quality import SampleQuality, teacher_samples
from mobile_video_jax.studies.shrinking_config import DistillationStudy
from mobile_video_jax.train.loop import train

# What an arm changes of the distillation's config: keys of DistillTraining, and of its objective. Taps are thirds.
ARMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "kd": ({}, {"method": "kd"}),
    "conv": ({"head": "conv"}, {"method": "adversarial"}),
    "dit": ({"head": "dit"}, {"method": "adversarial"}),
    "mismatched": ({"head": "dit"}, {"method": "adversarial", "mismatched": 1.0}),
    "taps": ({"head": "dit", "pooling": "frame"}, {"method": "adversarial", "same_noise": True}),
    "renoise": ({"solver": "renoise"}, {"method": "kd"}),
    "renoise-dit": ({"solver": "renoise", "head": "dit"}, {"method": "adversarial"}),
    "dmd": ({}, {"method": "dmd"}),
    "dmd2": ({}, {}),
    "scm": ({}, {}),
    "kdmd": ({}, {}),
}
# Models that are not distilled: the run, the steps (0: the study's), and whether sampling is guided.
STUDENT = "student"
BASELINES = {
    "teacher": (TEACHER, 0, True),
    "teacher-4": (TEACHER, 4, True),
    "student": (STUDENT, 0, True),
    "student-4": (STUDENT, 4, False),
}


def cells(study: DistillationStudy) -> Cells:
    """The cells by name, seed after seed: the baselines, then the arms, repeat after repeat."""
    grid: dict[str, tuple[str, int, int]] = {}
    for seed in study.seeds:
        grid |= {f"{arm}-seed{seed}": (arm, seed, 0) for arm in BASELINES}
        for repeat, arm in itertools.product(range(study.repeats), study.arms):
            grid[f"{arm}-seed{seed}" + (f"-{repeat}" if study.repeats > 1 else "")] = (arm, seed, repeat)
    return grid


def run_distillation_study(
    study: DistillationStudy, out: Path, *, worker: int = 0, workers: int = 1
) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are."""
    run = lambda arm, seed, repeat, folder: _run_cell(study, arm, seed, repeat, out, folder)
    also = lambda seed: _make_student(study, seed, out)
    return run_chain_study(study, cells(study), out, run, also=also, worker=worker, workers=workers)


def plan_distillation(study: DistillationStudy) -> list[dict[str, Any]]:
    """Cost of every cell in FLOPs of training, counted without running anything; baselines only sample."""
    flops: dict[str, int] = dict.fromkeys(BASELINES, 0)
    for arm in study.arms:
        config = arm_config(study, arm)
        flops[arm] = DistillStage(config).cost().flops * config.steps
    rows = [{"name": name, "train_flops": flops[arm]} for name, (arm, *_) in cells(study).items()]
    if "kdmd" in study.arms:
        config = few_step_config(study)
        cost = DistillStage(config).cost().flops * config.steps
        rows += [{"name": f"few-step-teacher-seed{seed}", "train_flops": cost} for seed in study.seeds]
    return rows


def _make_student(study: DistillationStudy, seed: int, out: Path) -> None:
    """The seed's teacher, pruned and recovered, and the teacher's samples."""
    data, pruned = str(out / "latents"), out / "students" / f"pruned{seed}"
    prune(dataclasses.replace(study.prune, seed=seed), teacher_run(out, seed), data, pruned)
    config = dataclasses.replace(study.recover, init_from=str(pruned), data=data, seed=seed)
    train(RecoverStage.build(config), _student_run(out, seed))
    if study.warm_steps:
        warm = changed(study.distill, "kd", init_from=str(_student_run(out, seed)), data=data, seed=seed)
        warm = dataclasses.replace(warm, steps=study.warm_steps, checkpoint_every=study.warm_steps)
        train(DistillStage.build(warm), _start_run(study, out, seed))
    if "kdmd" in study.arms:
        names = {"init_from": str(teacher_run(out, seed)), "data": data}
        train(DistillStage.build(few_step_config(study, **names, seed=seed)), _few_step_run(out, seed))
    teacher_samples(study, out, seed)


def _few_step_run(out: Path, seed: int) -> Path:
    return out / "few-step-teachers" / f"seed{seed}"


def _student_run(out: Path, seed: int) -> Path:
    return out / "students" / f"seed{seed}"


def _start_run(study: DistillationStudy, out: Path, seed: int) -> Path:
    """The run that the arms start from."""
    return out / "students" / f"warm{seed}" if study.warm_steps else _student_run(out, seed)


def changed(config: DistillTraining, arm: str, **changes: Any) -> DistillTraining:
    """The config of an arm, with other changes."""
    own, objective = ARMS[arm]
    config = dataclasses.replace(config, **own, **changes, objective=dataclasses.replace(config.objective, **objective))
    if arm == "taps":
        depth = len(as_transformer(config.teacher_model).block_shapes)
        config = dataclasses.replace(config, taps=(max(depth // 3, 1), 2 * depth // 3))
    return RECIPES[arm](config) if arm in RECIPES else config


def arm_config(study: DistillationStudy, arm: str, **changes: Any) -> DistillTraining:
    """The config of an arm, for as many steps as cost what the dit arm's do."""
    return _at_budget(study, changed(study.distill, arm, **changes))


def few_step_config(study: DistillationStudy, **changes: Any) -> DistillTraining:
    """The config of the teacher's adapter that the kdmd arm learns from, at the cost of an arm."""
    return _at_budget(study, RECIPES["few_step"](dataclasses.replace(study.distill, **changes)))


def _at_budget(study: DistillationStudy, config: DistillTraining) -> DistillTraining:
    dit = changed(study.distill, "dit")
    budget = study.distill.steps * DistillStage(dit).cost().flops
    return dataclasses.replace(config, steps=max(round(budget / DistillStage(config).cost().flops), 1))


def _run_cell(study: DistillationStudy, arm: str, seed: int, repeat: int, out: Path, folder: Path) -> dict[str, Any]:
    quality = SampleQuality(study, out, seed)
    if arm == TEACHER:
        return {"steps": {str(study.sampling.steps): quality.of_teacher(teacher_run(out, seed))}}
    if arm in BASELINES:
        model, steps, is_guided = BASELINES[arm]
        run = teacher_run(out, seed) if model == TEACHER else _student_run(out, seed)
        scale = study.sampling.guidance if is_guided else 1.0
        return {"steps": {str(steps or study.sampling.steps): quality(run, steps or study.sampling.steps, scale)}}
    names = {"init_from": str(_start_run(study, out, seed)), "data": str(out / "latents")}
    if arm == "kdmd":
        names["few_step"] = str(_few_step_run(out, seed))
    config = arm_config(study, arm, **names, seed=1000 * repeat + seed)
    result: dict[str, Any] = {"repeat": repeat, "trained": config.steps}
    if study.head_steps and "discriminator" in CRITICS[config.objective.method]:
        result["head"] = measure_head(head_alone(config, study.head_steps), folder / "head")
    run, few = folder / "distilled", study.distill.sampling_steps
    result["curve"] = []
    for part in parts(config, study.points):
        train(DistillStage.build(part), run)
        result["curve"].append({"step": part.steps, **quality(run, few, 1.0, config.solver)})
    at = {few: result["curve"][-1]}
    result["steps"] = {str(n): at.get(n) or quality(run, n, 1.0, config.solver) for n in study.evaluated_steps}
    return result


def parts(config: DistillTraining, points: int) -> list[DistillTraining]:
    """The config up to each of `points` equal shares of its steps, on the schedule of all of them."""
    optimizer = dataclasses.replace(config.optimizer, schedule_steps=config.steps)
    ends = sorted({max(round(config.steps * i / points), 1) for i in range(1, points + 1)})
    return [dataclasses.replace(config, steps=end, optimizer=optimizer) for end in ends]
