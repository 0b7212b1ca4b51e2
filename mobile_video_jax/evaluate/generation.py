"""Evaluating a transformer: clips drawn for held-out captions, beside the real clips that the captions describe."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.image import imsave

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.claim import claim
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json, replacing
from mobile_video_jax.data.dataset import read_manifest
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.evaluate.drawn_clips import draw_clips
from mobile_video_jax.evaluate.generation_report import write_generation_report
from mobile_video_jax.evaluate.generation_scores import Drawn, score_drawn
from mobile_video_jax.evaluate.protocol import (
    CLAIM,
    REPORT,
    Evaluation,
    check_held_out,
    data_facts,
    run_facts,
    write_evaluation,
)
from mobile_video_jax.evaluate.reconstruction import Code, pieces, whole_clips
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.folder import GenerationJob
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.metrics.clip_scorer import Caption, Scorer
from mobile_video_jax.metrics.video_distance import SETTINGS, FeatureCache, obstacle
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.distributed import is_first, wait_for_all

SAMPLES = 4  # clips of each caption that diversity is measured on
HALVES = "fvd and kvd of real clips are between their two halves: fewer clips, which raises Fréchet distance"
CLIPS, IMAGES, FEATURES = "clips", "images", "features"


@dataclasses.dataclass(frozen=True)
class GenerationTask:
    """A transformer run, the captions it draws and how.

    Captions are those of the first `count` clips of a held-out split; clip i has the seed `seed` + i and, with `image`,
    starts from the real clip's first frame. The first `diversity_prompts` different captions are drawn three more
    times. `sampling` are changes of the run's own sampling (Generator.sample_config). `fvd` asks for Fréchet and
    kernel video distance; None measures them where that can be done. The rest is as for Generator.load.
    """

    run: Run
    data: Path
    out: Path
    sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    split: str = "test"
    count: int = 64
    seed: int = 0
    image: bool = False
    diversity_prompts: int = 4
    fvd: bool | None = None
    vae: Run | None = None
    text_encoder: str = ""
    clip: str = ""
    fsdp: int = 1
    batch_size: int = 16


def evaluate_generation(task: GenerationTask) -> dict[str, Any]:
    """Draws into `out`/clips, writes report.json, scores.json and report.html, and returns the content of the first.

    Started again it goes on where it was. Processes share the drawing, and the first one scores. Raises UserError for
    settings that do not work, too few clips or missing weights for what is asked, and damaged clips.
    """
    check_held_out(task.split)
    generator = Generator.load(task.run, task.vae, task.text_encoder, clip=task.clip, fsdp=task.fsdp)
    if task.image and not generator.denoiser.config.image_probability:
        raise UserError(f"{task.run} was trained with image_probability=0 and starts from no image: leave out --image")
    config = generator.sample_config(**task.sampling)
    settings, notes = _settings(task, generator, config)
    captions = _captions(task, generator, settings["clips"])
    groups = _groups(captions, task.diversity_prompts)
    generator.check(_requests(captions, groups, task.seed, []), config)
    claim(task.out, CLAIM, settings, "evaluation")
    images = _first_frames(task, generator, len(captions)) if task.image else []
    requests = _requests(captions, groups, task.seed, images)
    job = GenerationJob(requests, config, task.out / CLIPS, generator.frame_rate)
    files = draw_clips(generator, job, task.batch_size)
    if is_first():
        drawn = Drawn(files, captions, groups, functools.partial(_videos, task, generator))
        _score(task, generator, config, drawn, settings, notes)
    wait_for_all("the report is written")
    return read_json(task.out / REPORT)


def _settings(task: GenerationTask, generator: Generator, config: SampleConfig) -> tuple[dict[str, Any], list[str]]:
    """All that decides the numbers, and what is left out and why. Raises UserError for what cannot be measured."""
    data = data_facts(task.data, task.split, task.count)
    settings = {"run": str(task.run), **run_facts(task.run), **data, "clip": str(generator.clip)}
    if task.vae:
        settings["vae"] = {"run": str(task.vae), **run_facts(task.vae)}
    settings |= {"seed": task.seed, "sampling": dataclasses.asdict(config), "image": task.image}
    settings |= {"diversity_prompts": task.diversity_prompts, "metrics": {}}
    reason = obstacle(generator.clip, data["clips"])
    if task.fvd and reason:
        raise UserError(reason)
    if task.fvd is False or reason:
        return settings, [f"not measured: {reason}"] if task.fvd is None else []
    return {**settings, "metrics": SETTINGS}, [HALVES]


def _captions(task: GenerationTask, generator: Generator, count: int) -> list[Caption]:
    """What the first clips of the held-out split show. Raises UserError where they are no clips of this shape."""
    items = itertools.islice(captioned_clips(task.data, task.split, generator.clip), count)
    return [Caption(item["id"], item["caption"], item["attributes"]) for item in items]


def _videos(task: GenerationTask, generator: Generator, indices: Sequence[int]) -> Iterable[Frames]:
    return (item["video"] for item in captioned_clips(task.data, task.split, generator.clip, indices))


def _groups(captions: Sequence[Caption], count: int) -> list[list[int]]:
    """The numbers of the requests for each of the first different captions: its own, and more behind all of those."""
    firsts: dict[str, int] = {}
    for i, caption in enumerate(captions):
        firsts.setdefault(caption.text, i)
    more = itertools.count(len(captions))
    return [[i, *itertools.islice(more, SAMPLES - 1)] for i in list(firsts.values())[:count]]


def _requests(
    captions: Sequence[Caption], groups: Sequence[Sequence[int]], seed: int, images: Sequence[Path]
) -> list[Request]:
    """A request for each caption, and the further ones of the groups."""
    asked = [*range(len(captions)), *(group[0] for group in groups for _ in group[1:])]
    return [Request(captions[i].text, seed + k, images[i] if images else None) for k, i in enumerate(asked)]


def _first_frames(task: GenerationTask, generator: Generator, count: int) -> list[Path]:
    """Image files of the real clips' first frames."""
    paths = [task.out / IMAGES / f"{i:05}.png" for i in range(count)]
    for path, frames in zip(paths, _videos(task, generator, range(count)), strict=True):
        if not path.exists():
            with replacing(path) as temporary:
                imsave(temporary, frames[0], format="png")
    return paths


def _score(
    task: GenerationTask,
    generator: Generator,
    config: SampleConfig,
    drawn: Drawn,
    settings: dict[str, Any],
    notes: list[str],
) -> None:
    """Writes the report."""
    world = read_manifest(task.data)["world"]
    cache = FeatureCache(task.out / FEATURES) if settings["metrics"] else None
    scorer = Scorer(world and from_mapping(World, world), cache)
    scores = score_drawn(drawn, scorer, _code(generator, config) if task.image else None)
    evaluation = Evaluation(
        *("dit", settings, drawn.names, [caption.text for caption in drawn.captions]),
        *(scores.metrics, scores.per_clip, scores.beside, scorer.chance()),
        notes=notes,
    )
    write_generation_report(task.out, write_evaluation(task.out, evaluation), drawn, scores.per_clip)


def _code(generator: Generator, config: SampleConfig) -> Code:
    """Codes a clip as the drawn ones are decoded."""
    in_pieces = config.chunk or config.tile
    return pieces(generator.vae, config.chunk, config.tile, config.overlap) if in_pieces else whole_clips(generator.vae)
