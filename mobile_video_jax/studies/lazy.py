"""The study of sampling steps that do without modules: against fewer steps, and against a smaller student."""

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.files import replacing
from mobile_video_jax.evaluate.alignment import generate_samples
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.lazy.choose import check_target
from mobile_video_jax.lazy.costs import module_costs
from mobile_video_jax.lazy.run import make_lazy
from mobile_video_jax.metrics.accuracy import ALL, attributes_right
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.prune.config import Budget
from mobile_video_jax.prune.run import prune
from mobile_video_jax.stages.config import LazyTraining
from mobile_video_jax.stages.distill import DistillStage
from mobile_video_jax.stages.lazy import LazyStage
from mobile_video_jax.studies.chain import Cells, run_chain_study, teacher_run
from mobile_video_jax.studies.shrinking_config import LazyStudy
from mobile_video_jax.train.loop import train

# Samplers of the teacher with a table, and how it is chosen.
REUSE_ARMS = {"reuse": "sensitivity", "lazy": "gates", "chance": "random"}
STUDENT_ARMS = ("none", "sensitivity", "random", "smaller")


def fewer_steps(steps: int, target: float) -> int:
    """The steps of a plain sampler of at least the FLOPs of `steps` steps without the share `target`."""
    return math.ceil(steps * (1 - target) - 1e-9)


def saved(study: LazyStudy, arm: str) -> tuple[float, ...]:
    """The shares of FLOPs that an arm of REUSE_ARMS saves."""
    return study.targets if arm == "reuse" else study.control_targets


def cells(study: LazyStudy) -> Cells:
    """The cells by name, seed after seed: an arm, its seed, its steps and the share that is saved."""
    grid: dict[str, tuple[str, int, int, float]] = {}
    arms = [arm for arm in REUSE_ARMS if arm in study.arms]
    lazy = {arm: list(itertools.product(study.steps, saved(study, arm))) for arm in arms}
    plain = sorted({*study.steps, *(fewer_steps(*pair) for pair in itertools.chain(*lazy.values()))}, reverse=True)
    for seed in study.seeds:
        if "fewer" in study.arms:
            grid |= {f"fewer-{n}-seed{seed}": ("fewer", seed, n, 0.0) for n in plain}
        for arm in arms:
            grid |= {f"{arm}-{n}-{round(100 * p)}-seed{seed}": (arm, seed, n, p) for n, p in lazy[arm]}
        share, steps = study.student_target, study.distill.sampling_steps
        for arm in (arm for arm in STUDENT_ARMS if arm in study.arms):
            grid[f"{arm}-seed{seed}"] = (arm, seed, steps, 0.0 if arm == "none" else share)
    return grid


def run_lazy_study(study: LazyStudy, out: Path, *, worker: int = 0, workers: int = 1) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are.

    Raises UserError for a saving that no table has, before anything is trained.
    """
    _check_targets(study)

    def run(arm: str, seed: int, steps: int, target: float, folder: Path) -> dict[str, Any]:
        made, config = MAKERS.get(arm, _student)(study, arm, seed, steps, target, out, folder)
        costs = _costs(made, config, teacher_run(out, seed))
        return {"steps": steps, "target": target, **costs, **_quality(study, made, config, out, seed)}

    def also(seed: int) -> None:
        _make_reference(study, out, seed)
        if set(study.arms) & set(STUDENT_ARMS):
            teacher = str(teacher_run(out, seed))
            config = dataclasses.replace(study.distill, init_from=teacher, teacher=teacher, **_shared(out, seed))
            train(DistillStage.build(config), _student_run(out, seed))

    return run_chain_study(study, cells(study), out, run, also=also, worker=worker, workers=workers)


def plan_lazy(study: LazyStudy) -> list[dict[str, Any]]:
    """FLOPs of every cell, counted without running anything: of training, and of the samples that it generates."""
    denoiser = Denoiser(study.dit)
    forward, rows = module_costs(denoiser, "flops").whole, []
    stages = {"lazy": LazyStage(_of_teacher(study)), "student": DistillStage(study.distill)}
    for name, (arm, _, steps, target) in cells(study).items():
        of_student = arm in STUDENT_ARMS
        trained = study.phase_steps if of_student else stages["lazy"].config.steps / len(study.control_targets)
        stage = stages["student" if of_student else "lazy"]
        evaluations = steps * (1 - target) * (1 if of_student else 2)
        train_flops = 0 if arm in ("fewer", "reuse", "chance") else round(trained * stage.cost().flops)
        rows.append({"name": name, "train_flops": train_flops, "sample_flops": study.samples * evaluations * forward})
    return rows


def _check_targets(study: LazyStudy) -> None:
    denoiser = Denoiser(study.dit)
    if set(study.arms) & set(REUSE_ARMS):
        costs = module_costs(denoiser, "flops")
        for steps in study.steps:
            check_target(max(study.targets), costs, steps, first=False, flag="--config.targets")
            check_target(max(study.control_targets), costs, steps, first=False, flag="--config.control_targets")
    if set(study.arms) & {"sensitivity", "random"}:
        costs, steps = module_costs(denoiser, "latency"), study.distill.sampling_steps
        check_target(study.student_target, costs, steps, first=True, flag="--config.student_target")


def _of_teacher(study: LazyStudy) -> LazyTraining:
    """The training of gates with the teacher's sizes, without a run."""
    same = {key: getattr(study.dit, key) for key in ("clip", "compression", "text_tokens", "model")}
    return dataclasses.replace(study.lazy, **same, sampling_steps=max(study.steps))


def _plain(
    study: LazyStudy, arm: str, seed: int, steps: int, target: float, out: Path, folder: Path
) -> tuple[Path, SampleConfig]:
    return teacher_run(out, seed), dataclasses.replace(study.sampling, steps=steps)


def _lazy(
    study: LazyStudy, arm: str, seed: int, steps: int, target: float, out: Path, folder: Path
) -> tuple[Path, SampleConfig]:
    """The teacher with a table; gates are trained and steps measured once for all targets of a number of steps."""
    changes = {"method": REUSE_ARMS[arm], "sampling_steps": steps, **_shared(out, seed)}
    config = dataclasses.replace(study.lazy, **changes)
    shared = out / config.method / f"{steps}-seed{seed}"
    made = make_lazy(config, Run.open(teacher_run(out, seed)), target, folder / "lazy", shared)
    sampling = dataclasses.replace(study.sampling, steps=steps, reuse=tuple(made["table"]))
    return folder / "lazy", sampling


def _student(
    study: LazyStudy, arm: str, seed: int, steps: int, target: float, out: Path, folder: Path
) -> tuple[Path, SampleConfig]:
    """The student, trained on for a phase: whole, without modules, or pruned to the same phone time."""
    start = student = _student_run(out, seed)
    shared = _shared(out, seed)
    if arm in ("sensitivity", "random"):
        start = folder / "lazy"
        changes: dict[str, Any] = {"method": arm, "cost": "latency", "sampling_steps": 0, **shared}
        make_lazy(dataclasses.replace(study.lazy, **changes), Run.open(student), target, start)
    if arm == "smaller":
        start = folder / "pruned"
        pruning = dataclasses.replace(study.prune, budget=Budget(latency=1 - target), seed=seed)
        prune(pruning, student, str(out / "latents"), start)
    shared |= {"init_from": str(start), "teacher": str(teacher_run(out, seed)), "steps": study.phase_steps}
    phase = dataclasses.replace(study.distill, **shared)
    train(DistillStage.build(phase), folder / "trained")
    sampling = Run.open(folder / "trained").denoiser.sampling
    return folder / "trained", SampleConfig(steps=steps, guidance=1.0, solver=sampling.solver, reuse=sampling.reuse)


MAKERS = {"fewer": _plain, **dict.fromkeys(REUSE_ARMS, _lazy)}


def _shared(out: Path, seed: int) -> dict[str, Any]:
    return {"data": str(out / "latents"), "seed": seed}


def _student_run(out: Path, seed: int) -> Path:
    return out / "students" / f"seed{seed}"


def _costs(run: Path, config: SampleConfig, teacher: Path) -> dict[str, float]:
    """Passes of the teacher's whole network that a clip takes the FLOPs of, and the phone's time for it."""
    denoiser, whole = Run.open(run).denoiser, Run.open(teacher).denoiser
    halves, table = 1 if config.guidance == 1 else 2, config.reuse
    shares = {
        kind: module_costs(denoiser, kind).share(table, guided=halves == 2) if table else 1.0
        for kind in ("flops", "latency")
    }
    passes = config.steps * halves
    flops = module_costs(denoiser, "flops").whole / module_costs(whole, "flops").whole
    return {
        "passes": passes * flops * shares["flops"],
        "phone_seconds": passes * module_costs(denoiser, "latency").whole * shares["latency"],
    }


def _make_reference(study: LazyStudy, out: Path, seed: int) -> None:
    """The teacher's clips in the most steps, which all others are compared with."""
    path = _reference(out, seed)
    if not path.exists():
        config = dataclasses.replace(study.sampling, steps=max(study.steps))
        clips = generate_samples(teacher_run(out, seed), study.world, study.samples, config).clips
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, clips=clips)


def _reference(out: Path, seed: int) -> Path:
    return out / "references" / f"seed{seed}.npz"


def _quality(study: LazyStudy, run: Path, config: SampleConfig, out: Path, seed: int) -> dict[str, Any]:
    """Of each held-out prompt whether its clip is right in all attributes, and how far it is from the reference."""
    samples = generate_samples(run, study.world, study.samples, config)
    with np.load(_reference(out, seed)) as arrays:
        distances = root_mean_squares(samples.clips, arrays["clips"])
    right = [attributes_right(study.world, *pair)[ALL] for pair in samples.pairs]
    return {"right": [int(each) for each in right], "distance": distances.tolist()}


def root_mean_squares(clips: Clips, others: Clips) -> np.ndarray:
    """The root mean squared difference of each clip from the other, in grey levels."""
    squares = [np.mean((a.astype(np.float32) - b) ** 2) for a, b in zip(clips, others, strict=True)]
    return np.sqrt(np.array(squares, np.float64))
