"""Samples of the shape world for held-out prompts, read back by the detector."""

import dataclasses
import time
from pathlib import Path

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.progress import Progress
from mobile_video_jax.data.shapes.shape_world import Attributes, prompts
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.metrics.accuracy import Pairs
from mobile_video_jax.metrics.shape_detector import Detected, detect


@dataclasses.dataclass(frozen=True)
class Samples:
    """Generated clips with their prompts, the attributes that these ask for, and those that the detector reads."""

    clips: Clips
    prompts: list[str]
    attributes: list[Attributes]
    detected: list[Detected]
    seconds_per_clip: float

    @property
    def pairs(self) -> Pairs:
        """Prompted and detected attributes, clip by clip."""
        return list(zip(self.attributes, self.detected, strict=True))


def generate_samples(
    run: Path | str, world: World, count: int, config: SampleConfig, text_encoder: str = "", *, clip: str = ""
) -> Samples:
    """Generates `count` clips for prompts of held-out combinations, with the seeds 0 to count - 1.

    They have the run's shape or that of `clip`.
    """
    texts = [text for text, _ in _prompts(world, count)]
    generator, progress = Generator.load(run, text_encoder=text_encoder, clip=clip), Progress("sample:", count)
    started = time.monotonic()
    clips = generator.generate(texts, config=config, progress=progress.report).frames
    seconds = (time.monotonic() - started) / count
    return read_back(clips, world, seconds)


def read_back(clips: Clips, world: World, seconds_per_clip: float) -> Samples:
    """The samples that `generate_samples` returned, of their clips."""
    texts, attributes = zip(*_prompts(world, len(clips)), strict=True)
    return Samples(clips, list(texts), list(attributes), [detect(frames, world) for frames in clips], seconds_per_clip)


def _prompts(world: World, count: int) -> list[tuple[str, Attributes]]:
    return list(prompts(world, seed=1, n=count, split="test"))
