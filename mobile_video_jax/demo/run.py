"""The whole chain on the embedded data: videos, VAE, latents, transformer, a smaller, faster one, samples, packages."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.progress import duration, say
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.data.shapes.shape_world import Attributes
from mobile_video_jax.data.video.write import write_mp4
from mobile_video_jax.demo.config import DemoConfig
from mobile_video_jax.demo.export import check_export, export_packages
from mobile_video_jax.evaluate.alignment import Samples, generate_samples
from mobile_video_jax.evaluate.reconstruction import Reconstruction, reconstruct
from mobile_video_jax.latents.encode import encode_dataset
from mobile_video_jax.latents.plan import EncodeOptions
from mobile_video_jax.metrics.shape_detector import Detected, detect
from mobile_video_jax.models.run import Run
from mobile_video_jax.prune.report import write_prune_report
from mobile_video_jax.prune.run import prune
from mobile_video_jax.prune.selection import Pruned
from mobile_video_jax.stages.config import DistillTraining
from mobile_video_jax.stages.distill import DistillStage
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.recover import RecoverStage
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.train.loop import train


@dataclasses.dataclass(frozen=True)
class Model:
    """A run that generates clips, its name in the report, and whether it samples in few unguided steps."""

    run: str
    shown: str
    few: bool = False


MODELS = {
    "dit": Model("dit", "transformer"),
    "recovered": Model("recovered", "pruned and recovered"),
    "before": Model("recovered", "in few steps, before", few=True),
    "alone": Model("alone", "in few steps, distilled alone, no discriminator", few=True),
    "distilled": Model("distilled", "in few steps, distilled", few=True),
}


CONTENT = (
    *("data", "vae", "latents", "dit", "pruned", "recovered", "distilled", "videos", "export"),
    *("report.html", "report.json"),
)


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """All that the report shows; samples are those of each of MODELS, for the same prompts and seeds."""

    config: DemoConfig
    out: Path
    stages: dict[str, dict[str, Any]]
    reconstructions: dict[str, Reconstruction]
    samples: dict[str, Samples]
    pruned: Pruned
    exported: dict[str, Any]
    real_seen: list[tuple[Attributes, Detected]]


def run_demo(config: DemoConfig, out: Path) -> DemoResult:
    """Runs every stage in its own folder of `out`; a stage that is finished there already is not run again."""
    check_export()
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
    pruned: list[Pruned] = []
    timed("prune", lambda: _prune(config, out, pruned))
    recover = dataclasses.replace(config.recover, init_from=str(out / "pruned"), data=str(out / "latents"))
    timed("recover", lambda: train(RecoverStage.build(recover), out / "recovered"))
    distill = dataclasses.replace(config.distill, init_from=str(out / "recovered"), data=str(out / "latents"))
    timed("distill", lambda: train(DistillStage.build(distill), out / "distilled"))
    timed("alone", lambda: train(DistillStage.build(without_discriminator(distill)), out / "alone"))
    bundle = Run.open(out / "vae").vae()
    reconstructions = {
        "moving_shapes": reconstruct(bundle, shapes, "test", clip, count=64),
        "sample_clips": reconstruct(bundle, real, "test", clip, count=64),
    }
    samples: dict[str, Samples] = {}
    timed("sample", lambda: _sample(config, out, samples))
    exported: dict[str, Any] = {}
    prompt = samples["distilled"].prompts[0]
    timed("export", lambda: _export(out, prompt, exported))
    real_seen = [
        (Attributes(**item["attributes"]), detect(item["video"], config.world))
        for item in captioned_clips(ClipSource.open(shapes), "test", clip)
    ]
    return DemoResult(config, out, stages, reconstructions, samples, pruned[0], exported, real_seen)


def without_discriminator(config: DistillTraining) -> DistillTraining:
    """Distillation alone, for as many steps as cost what the config's do."""
    alone = dataclasses.replace(config, objective=dataclasses.replace(config.objective, method="kd"))
    both, one = (DistillStage.build(each).cost().flops for each in (config, alone))
    steps = round(config.steps * both / one)
    return dataclasses.replace(alone, steps=steps, eval_every=steps, checkpoint_every=steps)


def _prepare(config: DemoConfig, clip: ClipShape, shapes: Path, real: Path) -> dict[str, Any]:
    sizes = {"train": config.train_clips, "validation": config.validation_clips, "test": config.test_clips}
    summary = prepare("moving_shapes", shapes, world=config.world, clip=clip, sizes=sizes)
    return {"moving_shapes": summary["accepted"], "sample_clips": prepare("sample_clips", real)["accepted"]}


def _encode(out: Path, data: Path, clip: ClipShape) -> dict[str, Any]:
    options = EncodeOptions(clips=(str(clip),), shard_records=4096)
    manifest = encode_dataset(out / "vae", data, out / "latents", options)
    return {split: parts[str(clip)]["records"] for split, parts in manifest["splits"].items()}


def _prune(config: DemoConfig, out: Path, result: list[Pruned]) -> dict[str, Any]:
    started = time.monotonic()
    pruned = prune(config.prune, out / "dit", str(out / "latents"), out / "pruned")
    numbers = write_prune_report(pruned, out / "pruned", time.monotonic() - started)
    result.append(pruned)
    return {**numbers["models"][pruned.chosen], "kd_loss": pruned.losses[pruned.chosen]}


def _export(out: Path, prompt: str, result: dict[str, Any]) -> dict[str, Any]:
    result |= export_packages(out / "distilled", out / "export", prompt)
    return {"packages": len(result["packages"]), "bytes": sum(package["bytes"] for package in result["packages"])}


def _sample(config: DemoConfig, out: Path, result: dict[str, Samples]) -> dict[str, Any]:
    """Generates clips for prompts of held-out combinations, writes them as mp4 and reads their attributes back."""
    for name, model in MODELS.items():
        sampling = config.few if model.few else config.sampling
        samples = generate_samples(out / model.run, config.world, config.samples, sampling)
        for i, (text, frames) in enumerate(zip(samples.prompts, samples.clips, strict=True)):
            file = f"{i:03}-{text.replace(' ', '-')}-{name}.mp4"
            write_mp4(out / "videos" / file, frames, config.fps, scale=4)
        result[name] = samples
    seconds = {name: samples.seconds_per_clip for name, samples in result.items()}
    return {"clips": config.samples, "seconds_per_clip": seconds, **config.sampling.__dict__}
