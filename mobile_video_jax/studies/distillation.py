"""The study of step distillation: one recovered student, taught to generate in few unguided steps in several ways."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.distill.objective import CRITICS
from mobile_video_jax.evaluate.alignment import generate_samples
from mobile_video_jax.evaluate.backbone_features import backbone_features
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.metrics.accuracy import accuracies
from mobile_video_jax.metrics.diversity import pixel_diversity
from mobile_video_jax.metrics.kernel_distance import kernel_distance
from mobile_video_jax.metrics.motion import motion_energy
from mobile_video_jax.models.config import SolverName
from mobile_video_jax.models.networks import as_transformer
from mobile_video_jax.prune.run import prune
from mobile_video_jax.stages.config import DistillTraining
from mobile_video_jax.stages.distill import DistillStage
from mobile_video_jax.stages.distill_recipes import RECIPES
from mobile_video_jax.stages.recover import RecoverStage
from mobile_video_jax.studies.chain import TEACHER, Cells, run_chain_study, teacher_run
from mobile_video_jax.studies.config import DistillationStudy
from mobile_video_jax.studies.head_quality import head_alone, measure_head
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
}
HALVES = 20  # random halves of the real clips, whose distances are the floor of all others
# Models that are not distilled: the run, the steps (0: the study's), and whether sampling is guided.
STUDENT = "student"
BASELINES = {
    "teacher": (TEACHER, 0, True),
    "teacher-4": (TEACHER, 4, True),
    "student": (STUDENT, 0, True),
    "student-4": (STUDENT, 4, False),
}
FEW_STEPS = (1, 2, 4, 8)
PROMPTS, SAMPLES = 4, 4  # of diversity: prompts, and samples of each


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
    return [{"name": name, "train_flops": flops[arm]} for name, (arm, *_) in cells(study).items()]


def _make_student(study: DistillationStudy, seed: int, out: Path) -> None:
    """The seed's teacher, pruned and recovered."""
    data, pruned = str(out / "latents"), out / "students" / f"pruned{seed}"
    prune(dataclasses.replace(study.prune, seed=seed), teacher_run(out, seed), data, pruned)
    config = dataclasses.replace(study.recover, init_from=str(pruned), data=data, seed=seed)
    train(RecoverStage.build(config), _student_run(out, seed))
    if study.warm_steps:
        warm = changed(study.distill, "kd", init_from=str(_student_run(out, seed)), data=data, seed=seed)
        warm = dataclasses.replace(warm, steps=study.warm_steps, checkpoint_every=study.warm_steps)
        train(DistillStage.build(warm), _start_run(study, out, seed))


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
    config, dit = changed(study.distill, arm, **changes), changed(study.distill, "dit")
    budget = study.distill.steps * DistillStage(dit).cost().flops
    return dataclasses.replace(config, steps=max(round(budget / DistillStage(config).cost().flops), 1))


def _run_cell(study: DistillationStudy, arm: str, seed: int, repeat: int, out: Path, folder: Path) -> dict[str, Any]:
    evaluate = _Evaluator(study, out, seed)
    if arm in BASELINES:
        model, steps, is_guided = BASELINES[arm]
        run = teacher_run(out, seed) if model == TEACHER else _student_run(out, seed)
        scale = study.sampling.guidance if is_guided else 1.0
        return {"steps": {str(steps or study.sampling.steps): evaluate(run, steps or study.sampling.steps, scale)}}
    names = {"init_from": str(_start_run(study, out, seed)), "data": str(out / "latents")}
    config = arm_config(study, arm, **names, seed=1000 * repeat + seed)
    train(DistillStage.build(config), folder / "distilled")
    result: dict[str, Any] = {"repeat": repeat, "trained": config.steps}
    if study.head_steps and "discriminator" in CRITICS[config.objective.method]:
        result["head"] = measure_head(head_alone(config, study.head_steps), folder / "head")
    result["steps"] = {str(n): evaluate(folder / "distilled", n, 1.0, config.solver) for n in FEW_STEPS}
    return result


class _Evaluator:
    """Measures the samples of a model beside held-out real clips.

    Distances are on features of the next seed's teacher, which no discriminator of this seed looked through; a study of
    one seed has its own alone.
    """

    def __init__(self, study: DistillationStudy, out: Path, seed: int):
        other = study.seeds[(study.seeds.index(seed) + 1) % len(study.seeds)]
        self._study, self._features = study, backbone_features(teacher_run(out, other))
        clip = ClipShape.parse(study.vae.clip)
        source = ClipSource.open(out / "data")
        self._real: Clips = np.stack([item["video"] for item in captioned_clips(source, "test", clip)])

    def __call__(self, run: Path, steps: int, guidance: float, solver: SolverName | None = None) -> dict[str, Any]:
        study = self._study
        config = dataclasses.replace(
            study.sampling, steps=steps, guidance=guidance, solver=solver or study.sampling.solver
        )
        samples = generate_samples(run, study.world, study.samples, config)
        scores = accuracies(study.world, samples.pairs)
        real, made = self._features(self._real), self._features(samples.clips)
        return {
            "evaluations": steps * (2 if guidance != 1 else 1),
            "accuracy": {name: score.value for name, score in scores.items()},
            "distance": kernel_distance(real, made),
            "floor": real_distances(real),
            "motion": float(np.mean(motion_energy(samples.clips)) / np.mean(motion_energy(self._real))),
            "diversity": _diversity(run, samples.prompts[:PROMPTS], config),
            "seconds_per_clip": samples.seconds_per_clip,
        }


def real_distances(features: Float[np.ndarray, "n d"]) -> dict[str, float]:
    """Mean and deviation of the distances between random halves of real clips: smaller differences say nothing."""
    rng, distances = np.random.default_rng(0), []
    for _ in range(HALVES):
        order = rng.permutation(len(features))
        half = len(features) // 2
        distances.append(kernel_distance(features[order[:half]], features[order[half:]]))
    return {"mean": float(np.mean(distances)), "std": float(np.std(distances))}


def _diversity(run: Path, prompts: list[str], config: SampleConfig) -> float:
    """The mean over prompts of how different their samples are, in grey levels."""
    repeated = [prompt for prompt in prompts for _ in range(SAMPLES)]
    clips = Generator.load(run).generate(repeated, seed=1000, config=config).frames
    return float(np.mean([pixel_diversity(clips[i : i + SAMPLES]) for i in range(0, len(clips), SAMPLES)]))
