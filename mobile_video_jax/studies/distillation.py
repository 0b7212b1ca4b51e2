"""The study of step distillation: one recovered student, taught to generate in few unguided steps in several ways."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.evaluate.alignment import generate_samples
from mobile_video_jax.evaluate.backbone_features import backbone_features
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.metrics.accuracy import accuracies
from mobile_video_jax.metrics.diversity import pixel_diversity
from mobile_video_jax.metrics.kernel_distance import kernel_distance
from mobile_video_jax.metrics.motion import motion_energy
from mobile_video_jax.prune.run import prune
from mobile_video_jax.stages.config import DistillTraining
from mobile_video_jax.stages.distill import DistillStage
from mobile_video_jax.stages.recover import RecoverStage
from mobile_video_jax.studies.chain import TEACHER, Cells, cells_of, run_chain_study, teacher_run
from mobile_video_jax.studies.config import DistillationStudy
from mobile_video_jax.train.loop import train

# What an arm changes of the distillation's config: keys of DistillTraining, and of its objective.
ARMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "kd": ({}, {"method": "kd"}),
    "conv": ({"head": "conv"}, {"method": "adversarial"}),
    "dit": ({"head": "dit"}, {"method": "adversarial"}),
    "dmd": ({}, {"method": "dmd"}),
}
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
    """The cells by name, seed after seed: the baselines, then the arms."""
    return cells_of(study, BASELINES, study.arms)


def run_distillation_study(
    study: DistillationStudy, out: Path, *, worker: int = 0, workers: int = 1
) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are."""
    run = lambda arm, seed, folder: _run_cell(study, arm, seed, out, folder)
    also = lambda seed: _make_student(study, seed, out)
    return run_chain_study(study, cells(study), out, run, also=also, worker=worker, workers=workers)


def plan_distillation(study: DistillationStudy) -> list[dict[str, Any]]:
    """Cost of every cell in FLOPs of training, counted without running anything; baselines only sample."""
    rows = []
    for name, (arm, _) in cells(study).items():
        if arm in BASELINES:
            rows.append({"name": name, "train_flops": 0})
            continue
        config = _arm_config(study, arm)
        rows.append({"name": name, "train_flops": DistillStage(config).cost().flops * config.steps})
    return rows


def _make_student(study: DistillationStudy, seed: int, out: Path) -> None:
    """The seed's teacher, pruned and recovered."""
    data, pruned = str(out / "latents"), out / "students" / f"pruned{seed}"
    prune(dataclasses.replace(study.prune, seed=seed), teacher_run(out, seed), data, pruned)
    config = dataclasses.replace(study.recover, init_from=str(pruned), data=data, seed=seed)
    train(RecoverStage.build(config), _student_run(out, seed))


def _student_run(out: Path, seed: int) -> Path:
    return out / "students" / f"seed{seed}"


def _arm_config(study: DistillationStudy, arm: str, **changes: Any) -> DistillTraining:
    own, objective = ARMS[arm]
    config = study.distill
    return dataclasses.replace(config, **own, **changes, objective=dataclasses.replace(config.objective, **objective))


def _run_cell(study: DistillationStudy, arm: str, seed: int, out: Path, folder: Path) -> dict[str, Any]:
    evaluate = _Evaluator(study, out, seed)
    if arm in BASELINES:
        model, steps, is_guided = BASELINES[arm]
        run = teacher_run(out, seed) if model == TEACHER else _student_run(out, seed)
        scale = study.sampling.guidance if is_guided else 1.0
        return {"steps": {str(steps or study.sampling.steps): evaluate(run, steps or study.sampling.steps, scale)}}
    config = _arm_config(study, arm, init_from=str(_student_run(out, seed)), data=str(out / "latents"), seed=seed)
    train(DistillStage.build(config), folder / "distilled")
    return {"steps": {str(steps): evaluate(folder / "distilled", steps, 1.0) for steps in FEW_STEPS}}


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

    def __call__(self, run: Path, steps: int, guidance: float) -> dict[str, Any]:
        study = self._study
        config = dataclasses.replace(study.sampling, steps=steps, guidance=guidance)
        samples = generate_samples(run, study.world, study.samples, config)
        scores = accuracies(study.world, samples.pairs)
        real, made = self._features(self._real), self._features(samples.clips)
        return {
            "evaluations": steps * (2 if guidance != 1 else 1),
            "accuracy": {name: score.value for name, score in scores.items()},
            "distance": kernel_distance(real, made),
            "motion": float(np.mean(motion_energy(samples.clips)) / np.mean(motion_energy(self._real))),
            "diversity": _diversity(run, samples.prompts[:PROMPTS], config),
            "seconds_per_clip": samples.seconds_per_clip,
        }


def _diversity(run: Path, prompts: list[str], config: SampleConfig) -> float:
    """The mean over prompts of how different their samples are, in grey levels."""
    repeated = [prompt for prompt in prompts for _ in range(SAMPLES)]
    clips = Generator.load(run).generate(repeated, seed=1000, config=config).frames
    return float(np.mean([pixel_diversity(clips[i : i + SAMPLES]) for i in range(0, len(clips), SAMPLES)]))
