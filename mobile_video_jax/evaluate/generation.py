"""Evaluation of a transformer: clips generated for held-out captions, beside the real clips that those describe."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.image import imsave

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.claim import claim
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json, replacing
from mobile_video_jax.data.clip_loader import Window
from mobile_video_jax.data.dataset import ClipSource, read_manifest
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.evaluate.evaluation import (
    CLAIM,
    CLIPS,
    FEATURES,
    REPORT,
    Evaluation,
    check_held_out,
    data_facts,
    run_facts,
    write_evaluation,
)
from mobile_video_jax.evaluate.generated_clips import ClipFiles, generate_clips
from mobile_video_jax.evaluate.generation_report import write_generation_report
from mobile_video_jax.evaluate.generation_scores import score_generation
from mobile_video_jax.evaluate.reconstruction import Coder, coder_in_pieces, whole_clip_coder
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.folder import GenerationJob
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.metrics.clip_scores import Caption, Scorer
from mobile_video_jax.metrics.video_distance import SETTINGS, FeatureCache, obstacle
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.distributed import is_first, wait_for_all

SAMPLES = 4  # clips of each caption that diversity is measured on
HALVES = "fvd and kvd of real clips are between their two halves: fewer clips, which raises Fréchet distance"
IMAGES = "images"


@dataclasses.dataclass(frozen=True)
class GenerationTask:
    """A transformer run to evaluate, on the captions of the first `count` clips of a held-out split."""

    run: Run
    data: Path  # prepared video data set
    out: Path
    sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # changes, see Generator.sample_config
    split: str = "test"
    count: int = 64
    seed: int = 0  # of the first clip's noise; each clip has the next
    image: bool = False  # clips start from the real ones' first frames
    diversity_prompts: int = 4  # different captions that clips are generated for three more times
    fvd: bool | None = None  # Fréchet and kernel video distance; None: where they can be measured
    vae: Run | None = None  # as for Generator.load, and so the rest
    text_encoder: str = ""
    clip: str = ""
    fsdp: int = 1
    batch_size: int = 16
    features: Path | None = None  # as for VaeTask


def evaluate_generation(task: GenerationTask) -> dict[str, Any]:
    """Generates clips into `out`/clips, writes report.json, scores.json and report.html, and returns the first.

    A stopped evaluation resumes. Processes share the generation, and the first one scores. Raises UserError for
    settings that do not work, too few clips or missing weights for what is asked, and damaged clips.
    """
    check_held_out(task.split)
    if task.image:
        task.run.sampled.check_starts_from_images()
    generator = Generator.load(task.run, task.vae, task.text_encoder, clip=task.clip, fsdp=task.fsdp)
    config = generator.sample_config(**task.sampling)
    settings, notes = _settings(task, generator, config)
    real = RealClips(task.data, task.split, generator.clip)
    captions = real.captions(settings["clips"])
    groups = _groups(captions, task.diversity_prompts)
    generator.check(_requests(captions, groups, task.seed, []), config)
    claim(task.out, CLAIM, settings, "evaluation")
    images = real.write_first_frames(task.out / IMAGES, len(captions)) if task.image else []
    requests = _requests(captions, groups, task.seed, images)
    job = GenerationJob(requests, config, task.out / CLIPS, generator.frame_rate)
    clips = ClipFiles(generate_clips(generator, job, task.batch_size), captions, groups, real)
    if is_first():
        _score(task, clips, settings, notes, _coder(generator, config) if task.image else None)
    wait_for_all("the report is written")
    report: dict[str, Any] = read_json(task.out / REPORT)
    return report


@dataclasses.dataclass(frozen=True)
class RealClips:
    """The clips of a held-out split, cropped to one shape; called with indices it reads those."""

    data: Path
    split: str
    shape: ClipShape

    def __call__(self, indices: Sequence[int]) -> Iterable[Frames]:
        return (
            item["video"]
            for item in captioned_clips(ClipSource.open(self.data), self.split, self.shape, list(map(Window, indices)))
        )

    def captions(self, count: int) -> list[Caption]:
        """The captions of the first clips. Raises UserError where they are no clips of this shape."""
        items = itertools.islice(captioned_clips(ClipSource.open(self.data), self.split, self.shape), count)
        return [Caption(item["id"], item["caption"], item["attributes"]) for item in items]

    def write_first_frames(self, folder: Path, count: int) -> list[Path]:
        """Image files of the first frames of the first clips."""
        paths = [folder / f"{i:05}.png" for i in range(count)]
        for path, frames in zip(paths, self(range(count)), strict=True):
            if not path.exists():
                with replacing(path) as temporary:
                    imsave(temporary, frames[0], format="png")
        return paths


def _settings(task: GenerationTask, generator: Generator, config: SampleConfig) -> tuple[dict[str, Any], list[str]]:
    """Everything that decides the numbers, and notes on what is left out. Raises UserError where that was asked for."""
    data = data_facts(task.data, task.split, task.count)
    settings = {"run": str(task.run), **run_facts(task.run), **data, "clip": str(generator.clip)}
    if task.vae:
        settings["vae"] = {"run": str(task.vae), **run_facts(task.vae)}
    settings |= {"seed": task.seed, "sampling": dataclasses.asdict(config), "frame_rate": generator.frame_rate}
    settings |= {"image": task.image}
    settings |= {"diversity_prompts": task.diversity_prompts, "metrics": {}}
    reason = obstacle(generator.clip, data["clips"])
    if task.fvd and reason:
        raise UserError(reason)
    if task.fvd is False or reason:
        return settings, [f"not measured: {reason}"] if task.fvd is None else []
    return {**settings, "metrics": SETTINGS}, [HALVES]


def _groups(captions: Sequence[Caption], count: int) -> list[list[int]]:
    """Indices of the requests for each of the first different captions: its own, and more behind all of those."""
    firsts: dict[str, int] = {}
    for i, caption in enumerate(captions):
        firsts.setdefault(caption.text, i)
    more = itertools.count(len(captions))
    return [[i, *itertools.islice(more, SAMPLES - 1)] for i in list(firsts.values())[:count]]


def _requests(
    captions: Sequence[Caption], groups: Sequence[Sequence[int]], seed: int, images: Sequence[Path]
) -> list[Request]:
    """A request for each caption, and the further ones of the groups."""
    indices = [*range(len(captions)), *(group[0] for group in groups for _ in group[1:])]
    return [Request(captions[i].text, seed + k, images[i] if images else None) for k, i in enumerate(indices)]


def _score(
    task: GenerationTask, clips: ClipFiles, settings: dict[str, Any], notes: list[str], coder: Coder | None
) -> None:
    """Scores the clips and writes the report."""
    world = read_manifest(task.data)["world"]
    cache = FeatureCache(task.features or task.out / FEATURES) if settings["metrics"] else None
    scorer = Scorer(world and from_mapping(World, world), cache)
    scores = score_generation(clips, scorer, coder)
    evaluation = Evaluation(
        stage="dit",
        settings=settings,
        clips=clips.names,
        prompts=[caption.text for caption in clips.captions],
        metrics=scores.metrics,
        per_clip=scores.per_clip,
        beside=scores.beside,
        chance=scorer.chance(),
        notes=notes,
    )
    write_generation_report(task.out, write_evaluation(task.out, evaluation), clips, scores.per_clip)


def _coder(generator: Generator, config: SampleConfig) -> Coder:
    """Codes a clip as the generated ones are decoded."""
    if config.chunk or config.tile:
        return coder_in_pieces(generator.vae, config.chunk, config.tile, config.overlap)
    return whole_clip_coder(generator.vae)
