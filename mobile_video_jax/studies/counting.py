"""The study of counting: guides to the right number of objects at sampling, beside the best of several clips."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.progress import Progress
from mobile_video_jax.data.shapes.shape_world import prompts
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.metrics.accuracy import Pairs
from mobile_video_jax.metrics.shape_detector import detect
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.rewards.counter import passes
from mobile_video_jax.rewards.guided_generator import GuidedGenerator, make_guide
from mobile_video_jax.stages.critic import CriticStage
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.studies.chain import Cells, cells_of, run_chain_study, teacher_run
from mobile_video_jax.studies.clip_quality import DECODED, ClipQuality
from mobile_video_jax.studies.reward_config import CountingStudy
from mobile_video_jax.train.loop import train

PLAIN = "plain"
AGAIN = "again"  # plain sampling from other noise: what chance repairs where plain sampling is wrong
OTHER_NOISE = 10_000  # seed of the first clip of AGAIN
BATCH = 16


def cells(study: CountingStudy) -> Cells:
    """The cells by name, seed after seed: decoded real clips, plain sampling twice, then the guides."""
    return cells_of(study, (DECODED, PLAIN, AGAIN), study.arms)


def run_counting_study(study: CountingStudy, out: Path, *, worker: int = 0, workers: int = 1) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are."""

    def run(arm: str, seed: int, folder: Path) -> dict[str, Any]:
        return _run_cell(study, arm, seed, out)

    def critic(seed: int) -> None:
        train(CriticStage(dataclasses.replace(study.critic, data=str(out / "data"))), out / "critic")

    return run_chain_study(study, cells(study), out, run, also=critic, worker=worker, workers=workers)


def plan_counting(study: CountingStudy) -> list[dict[str, Any]]:
    """FLOPs of every cell's samples, and of the trainings that all share, counted without running anything.

    Of a guide only passes of the network are counted, not the critic's.
    """
    forward = Denoiser(study.dit).inspect()["flops"]["total"]
    rows = [
        {"name": name, "sample_flops": round(study.samples * _evaluations(study, arm) * forward)}
        for name, (arm, _) in cells(study).items()
    ]
    teacher = DitStage(study.dit).cost().flops * study.dit.steps
    trained = {"vae": VaeStage(study.vae), "critic": CriticStage(study.critic)}
    shared = [{"name": name, "train_flops": each.cost().flops * each.config.steps} for name, each in trained.items()]
    return rows + shared + [{"name": f"teacher-seed{seed}", "train_flops": teacher} for seed in study.seeds]


def _evaluations(study: CountingStudy, arm: str) -> float:
    """Passes of the network for a clip."""
    if arm == DECODED:
        return 0.0
    if arm in (PLAIN, AGAIN):
        return float(passes(study.sampling))
    return make_guide(arm, study.strengths.get(arm)).evaluations(study.sampling)


def _run_cell(study: CountingStudy, arm: str, seed: int, out: Path) -> dict[str, Any]:
    quality = ClipQuality(study, out, teacher_run(out, seed))
    if arm == DECODED:
        clips, pairs = quality.of_decoded()
        return {"evaluations": None, "seconds_per_clip": None, **_counts(pairs), **quality(clips, pairs)}
    texts, attributes = zip(*prompts(study.world, seed=1, n=study.samples, split="test"), strict=True)
    generator, progress = Generator.load(teacher_run(out, seed)), Progress(f"{arm}:", study.samples)
    if arm not in (PLAIN, AGAIN):
        guide = make_guide(arm, study.strengths.get(arm))
        generator = GuidedGenerator.of(generator, guide, str(out / "critic"))
    generator.generate(texts[:BATCH], config=study.sampling, batch_size=BATCH)  # compiles, which is not timed
    started, first = time.monotonic(), OTHER_NOISE if arm == AGAIN else 0
    clips = generator.generate(
        texts, seed=first, config=study.sampling, batch_size=BATCH, progress=progress.report
    ).frames
    seconds = (time.monotonic() - started) / study.samples
    pairs = [(asked, detect(frames, study.world)) for asked, frames in zip(attributes, clips, strict=True)]
    costs = {"evaluations": _evaluations(study, arm), "seconds_per_clip": seconds}
    return {**costs, **_counts(pairs), **quality(clips, pairs)}


def _counts(pairs: Pairs) -> dict[str, Any]:
    """Of each clip the number that is asked for, and a 1 where the detector reads it."""
    right = [int(asked.count == seen.count) for asked, seen in pairs]
    return {"asked": [asked.count for asked, _ in pairs], "right": right, "count": float(np.mean(right))}
