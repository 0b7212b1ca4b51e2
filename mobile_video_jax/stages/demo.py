"""The whole chain on the embedded data: videos, VAE, latents, transformer, samples, report."""

import dataclasses
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.data.dataset import prepare
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.data.shape_world import Attributes, World, prompts
from mobile_video_jax.data.video_file import write_mp4
from mobile_video_jax.evals.reconstruction import psnr, ssim
from mobile_video_jax.evals.shape_detector import Detected, detect
from mobile_video_jax.stages.bundle import VaeBundle
from mobile_video_jax.stages.dit import DitStage, DitTraining
from mobile_video_jax.stages.encode import encode_dataset
from mobile_video_jax.stages.generate import Generator, SampleConfig
from mobile_video_jax.stages.vae import VaeStage, VaeTraining
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.progress import Progress, duration, say
from mobile_video_jax.vae.pixels import to_bytes, to_signed


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """Sizes of the demo's world, its two training runs and its evaluation."""

    world: World
    vae: VaeTraining
    dit: DitTraining
    sampling: SampleConfig
    train_clips: int = 3000
    validation_clips: int = 128
    test_clips: int = 120
    samples: int = 120
    fps: int = 8


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Held-out clips, what the VAE makes of them, and how near it comes for each clip."""

    clips: Clips
    decoded: Clips
    psnr: np.ndarray
    ssim: np.ndarray


@dataclasses.dataclass(frozen=True)
class Samples:
    """Sampled clips with their prompts, what was asked for and what the detector sees."""

    clips: Clips
    prompts: list[str]
    asked: list[Attributes]
    seen: list[Detected]
    seconds_per_clip: float


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """All that the report shows."""

    config: DemoConfig
    out: Path
    stages: dict[str, dict[str, Any]]
    reconstructions: dict[str, Reconstruction]
    samples: Samples
    real_seen: list[tuple[Attributes, Detected]]


def run_demo(config: DemoConfig, out: Path) -> DemoResult:
    """Runs every stage in its own folder of `out`; a stage that is finished there already is not run again."""
    stages: dict[str, dict[str, Any]] = {}

    def timed(name: str, run: Callable[[], dict[str, Any]]) -> None:
        say(f"── {name}")
        started = time.monotonic()
        metrics = run()
        seconds = time.monotonic() - started
        stages[name] = {"seconds": seconds, "loss": metrics.pop("loss", None), "metrics": metrics}
        say(f"── {name} took {duration(seconds)}")

    clip = ClipShape.parse(config.vae.clip)
    shapes, real = out / "data" / "moving_shapes", out / "data" / "sample_clips"
    vae = dataclasses.replace(config.vae, data=str(shapes), mix_data=str(real))
    dit = dataclasses.replace(config.dit, data=str(out / "latents"))
    timed("prepare", lambda: _prepare(config, clip, shapes, real))
    timed("vae", lambda: train(VaeStage(vae), out / "vae"))
    timed("encode", lambda: _encode(out, shapes, clip))
    timed("dit", lambda: train(DitStage(dit), out / "dit"))
    bundle = VaeBundle.load(out / "vae")
    reconstructions = {
        "moving_shapes": _reconstruct(bundle, shapes, clip),
        "sample_clips": _reconstruct(bundle, real, clip),
    }
    samples: list[Samples] = []
    timed("sample", lambda: _sample(config, out, samples))
    real_seen = [
        (Attributes(**item["attributes"]), detect(item["video"], config.world))
        for item in captioned_clips(shapes, "test", clip)
    ]
    return DemoResult(config, out, stages, reconstructions, samples[0], real_seen)


def _prepare(config: DemoConfig, clip: ClipShape, shapes: Path, real: Path) -> dict[str, Any]:
    sizes = {"train": config.train_clips, "validation": config.validation_clips, "test": config.test_clips}
    made = prepare("moving_shapes", shapes, world=config.world, clip=clip, sizes=sizes)
    return {"moving_shapes": made["accepted"], "sample_clips": prepare("sample_clips", real)["accepted"]}


def _encode(out: Path, data: Path, clip: ClipShape) -> dict[str, Any]:
    manifest = encode_dataset(
        out / "vae", data, out / "latents", clip=str(clip), text_encoder="minilm", batch_size=32, shard_records=4096
    )
    return {split: sizes["records"] for split, sizes in manifest["splits"].items()}


def _reconstruct(bundle: VaeBundle, data: Path, clip: ClipShape, count: int = 64) -> Reconstruction:
    """Codes and decodes up to `count` clips of the test split."""
    clips = np.stack([item["video"] for item in itertools.islice(captioned_clips(data, "test", clip), count)])
    code = jax.jit(lambda params, video: to_bytes(bundle.decode(params, bundle.encode(params, to_signed(video)))))
    decoded = np.concatenate([np.asarray(code(bundle.params, row[None])) for row in clips])
    return Reconstruction(clips, decoded, psnr(clips, decoded), ssim(clips, decoded))


def _sample(config: DemoConfig, out: Path, result: list[Samples]) -> dict[str, Any]:
    """Draws clips for prompts of held-out combinations, writes them as mp4 and reads their attributes back."""
    texts, asked = zip(*prompts(config.world, seed=1, n=config.samples, split="test"), strict=True)
    generator, progress = Generator.load(out / "dit"), Progress("sample:", config.samples)
    started = time.monotonic()
    clips = generator.generate(texts, range(config.samples), config.sampling, progress=progress.report)
    seconds = (time.monotonic() - started) / config.samples
    for i, (text, frames) in enumerate(zip(texts, clips, strict=True)):
        write_mp4(out / "videos" / f"{i:03}-{text.replace(' ', '-')}.mp4", frames, config.fps, scale=4)
    seen = [detect(frames, config.world) for frames in clips]
    result.append(Samples(clips, list(texts), list(asked), seen, seconds))
    return {"clips": config.samples, "seconds_per_clip": seconds, **config.sampling.__dict__}
