"""The study of counting: guides to the right number of objects at sampling, beside the best of several clips."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.progress import Progress
from mobile_video_jax.data.shapes.shape_world import prompts
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.metrics.shape_detector import detect
from mobile_video_jax.rewards.counter import passes
from mobile_video_jax.rewards.guided_generator import GuidedGenerator, make_guide
from mobile_video_jax.stages.critic import CriticStage
from mobile_video_jax.studies.chain import Cells, cells_of, run_chain_study, teacher_run
from mobile_video_jax.studies.clip_quality import ClipQuality
from mobile_video_jax.studies.config import CountingStudy
from mobile_video_jax.train.loop import train

PLAIN = "plain"


def cells(study: CountingStudy) -> Cells:
    """The cells by name, seed after seed: plain sampling, then the guides."""
    return cells_of(study, (PLAIN,), study.arms)


def run_counting_study(study: CountingStudy, out: Path, *, worker: int = 0, workers: int = 1) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are."""

    def run(arm: str, seed: int, folder: Path) -> dict[str, Any]:
        return _run_cell(study, arm, seed, out)

    def critic(seed: int) -> None:
        train(CriticStage(dataclasses.replace(study.critic, data=str(out / "data"))), out / "critic")

    return run_chain_study(study, cells(study), out, run, also=critic, worker=worker, workers=workers)


def plan_counting(study: CountingStudy) -> list[dict[str, Any]]:
    """Cells only sample: they train nothing."""
    return [{"name": name, "train_flops": 0} for name in cells(study)]


def _run_cell(study: CountingStudy, arm: str, seed: int, out: Path) -> dict[str, Any]:
    texts, attributes = zip(*prompts(study.world, seed=1, n=study.samples, split="test"), strict=True)
    generator, progress = Generator.load(teacher_run(out, seed)), Progress(f"{arm}:", study.samples)
    evaluations = float(passes(study.sampling))
    if arm != PLAIN:
        guide = make_guide(arm, study.strengths.get(arm))
        generator = GuidedGenerator.of(generator, guide, str(out / "critic"))
        evaluations = guide.evaluations(study.sampling)
    started = time.monotonic()
    clips = generator.generate(texts, config=study.sampling, progress=progress.report).frames
    seconds = (time.monotonic() - started) / study.samples
    detected = [detect(frames, study.world) for frames in clips]
    pairs = list(zip(attributes, detected, strict=True))
    right = [int(asked.count == seen.count) for asked, seen in pairs]
    return {
        "asked": [asked.count for asked, _ in pairs],
        "right": right,
        "evaluations": evaluations,
        "seconds_per_clip": seconds,
        "count": float(np.mean(right)),
        **ClipQuality(study, out, seed)(clips, pairs),
    }
