"""The study of rewards: one transformer, fine-tuned by a latent reward or a critic in several ways.

The detector is hidden: it labels the clips that the latent reward learns from, and no gradient comes from it.
"""

import dataclasses
from pathlib import Path
from typing import Any

from mobile_video_jax.evaluate.alignment import generate_samples
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.metrics.accuracy import ALL, accuracies
from mobile_video_jax.rewards.labelled_clips import LabelJob, label_clips, world_prompts
from mobile_video_jax.stages.config import DitTraining, RewardTuning
from mobile_video_jax.stages.critic import CriticStage
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.reward import RewardStage
from mobile_video_jax.stages.reward_tuning import RewardTuningStage
from mobile_video_jax.studies.chain import Cells, cells_of, run_chain_study, teacher_run
from mobile_video_jax.studies.clip_quality import DECODED, ClipQuality
from mobile_video_jax.studies.reward_config import RewardStudy
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.train.stage import Stage

BASE, FLOW = "base", "flow"  # the transformer as it is, and trained on as it was for as many steps
# What an arm changes of the tuning's reward, and which reward it has.
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "latent": ("rewards", {}),
    "latent-early": ("rewards", {"low": 0.7, "high": 1.0}),
    "latent-middle": ("rewards", {"low": 0.3, "high": 0.7}),
    "latent-late": ("rewards", {"low": 0.0, "high": 0.3}),
    "latent-alone": ("rewards", {"alternate": False}),
    "latent-hinge": ("rewards", {"enough": 0.9}),
    "critic-1": ("critic", {"grad_steps": 1}),
    "critic-2": ("critic", {"grad_steps": 2}),
    "critic-4": ("critic", {"grad_steps": 4}),
    "critic-alone": ("critic", {"grad_steps": 2, "alternate": False}),
}


def cells(study: RewardStudy) -> Cells:
    """The cells by name, seed after seed: decoded real clips, the base, plain training, then the arms."""
    return cells_of(study, (DECODED, BASE, FLOW), study.arms)


def run_reward_study(study: RewardStudy, out: Path, *, worker: int = 0, workers: int = 1) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are."""

    def run(arm: str, seed: int, folder: Path) -> dict[str, Any]:
        return _run_cell(study, arm, seed, out, folder)

    return run_chain_study(
        study, cells(study), out, run, also=lambda seed: _make_rewards(study, seed, out), worker=worker, workers=workers
    )


def plan_reward(study: RewardStudy) -> list[dict[str, Any]]:
    """Cost of every cell in FLOPs of flow matching, counted without running anything; rollouts come on top."""
    flops = DitStage(study.dit).cost().flops * study.tuning.steps
    return [
        {"name": name, "train_flops": 0 if arm in (DECODED, BASE) else flops}
        for name, (arm, *_) in cells(study).items()
    ]


def _make_rewards(study: RewardStudy, seed: int, out: Path) -> None:
    """The seed's labelled clips and latent reward, and the one critic of all seeds."""
    critic = dataclasses.replace(study.critic, data=str(out / "data"))
    train(CriticStage(critic), _reward_run(out, "critic", seed))
    prompts = world_prompts(study.world, {"train": study.labelled, "validation": study.validation_clips})
    generator, labelled = Generator.load(teacher_run(out, seed)), out / "labelled" / f"seed{seed}"
    config = study.rollout.with_times(**generator.times)
    label_clips(generator, LabelJob(prompts, config, labelled, study.world))
    reward = dataclasses.replace(study.reward, init_from=str(teacher_run(out, seed)), data=str(labelled), seed=seed)
    train(RewardStage.build(reward), _reward_run(out, "rewards", seed))


def _reward_run(out: Path, kind: str, seed: int) -> Path:
    return out / "critic" if kind == "critic" else out / kind / f"seed{seed}"


def arm_config(study: RewardStudy, arm: str, seed: int, out: Path) -> RewardTuning:
    """The config of an arm of ARMS."""
    kind, changes = ARMS[arm]
    reward = dataclasses.replace(study.tuning.reward, run=str(_reward_run(out, kind, seed)), **changes)
    shared: dict[str, Any] = {"init_from": str(teacher_run(out, seed)), "data": str(out / "latents"), "seed": seed}
    return dataclasses.replace(study.tuning, reward=reward, **shared, **_points(study))


def _flow_config(study: RewardStudy, seed: int, out: Path) -> DitTraining:
    shared: dict[str, Any] = {"init_from": str(teacher_run(out, seed)), "data": str(out / "latents"), "seed": seed}
    same = {key: getattr(study.tuning, key) for key in ("steps", "batch_size", "optimizer", "caption_dropout")}
    return dataclasses.replace(study.dit, **shared, **same, **_points(study))


def _points(study: RewardStudy) -> dict[str, Any]:
    period = max(study.tuning.steps // study.points, 1)
    return {"eval_every": period, "checkpoint_every": period, "keep_every": period}


def _run_cell(study: RewardStudy, arm: str, seed: int, out: Path, folder: Path) -> dict[str, Any]:
    run = teacher_run(out, seed)
    quality = ClipQuality(study, out, run)
    curve: list[dict[str, Any]] = []
    if arm == DECODED:
        return {"curve": curve, **quality(*quality.of_decoded())}
    if arm != BASE:
        run = folder / "tuned"
        stage: Stage = DitStage(_flow_config(study, seed, out))
        if arm != FLOW:
            stage = RewardTuningStage.build(arm_config(study, arm, seed, out))
        train(stage, run)
        curve = _curve(study, run)
    samples = generate_samples(run, study.world, study.samples, study.sampling)
    return {"curve": curve, **quality(samples.clips, samples.pairs)}


def _curve(study: RewardStudy, run: Path) -> list[dict[str, Any]]:
    """The reward on held-out captions and the hidden accuracy at each kept checkpoint."""
    points = []
    for line in read_metrics(run):
        step = line["step"]
        if "eval_loss" not in line or not study.curve_samples:
            continue
        samples = generate_samples(f"{run}@{step}", study.world, study.curve_samples, study.sampling)
        hidden = accuracies(study.world, samples.pairs)[ALL].value
        points.append({"step": step, "hidden": hidden, "reward": line.get("eval_reward")})
    return points
