"""Report of the demo: report.json for programs and report.html for people."""

import dataclasses
from typing import Any

from mobile_video_jax.core.files import write_json
from mobile_video_jax.core.progress import duration
from mobile_video_jax.core.revision import git_revision, hardware, versions
from mobile_video_jax.demo.export import drawn_clip
from mobile_video_jax.demo.run import MODELS, DemoResult
from mobile_video_jax.evaluate.reconstruction_report import reconstruction_blocks, reconstruction_numbers
from mobile_video_jax.metrics.accuracy import ALL, accuracies, attributes_right, chance
from mobile_video_jax.models.run import Run
from mobile_video_jax.prune.plan import sizes_of
from mobile_video_jax.prune.units import kept_shapes
from mobile_video_jax.report.blocks import ClipView, Curves, Gallery, GalleryRow, Report, Section, Table
from mobile_video_jax.report.page import write_report
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.train.metrics import read_metrics

SHOWN = 16  # prompts in the gallery
SOURCES = {"moving_shapes": "moving shapes", "sample_clips": "real video"}


def write_demo_report(result: DemoResult) -> dict[str, Any]:
    """Writes report.json and report.html into the demo's folder and returns the former's content."""
    numbers = demo_numbers(result)
    write_json(result.out / "report.json", numbers)
    write_report(result.out / "report.html", _page(result, numbers))
    return numbers


def demo_numbers(result: DemoResult) -> dict[str, Any]:
    """Every figure of the report, as plain values."""
    shapes, real = (reconstruction_numbers(result.reconstructions[name]) for name in SOURCES)
    return {
        "stages": result.stages,
        "samples": {
            "accuracy": attribute_table(result, "dit"),
            "models": {name: {"accuracy": attribute_table(result, name), **_size(result, name)} for name in MODELS},
        },
        "vae": {
            **shapes,
            "real": real,
            "ratio": result.config.vae.model.strides.ratio,
            "cost": VaeStage(result.config.vae).inspect(),
        },
        "dit": {"cost": DitStage(result.config.dit).inspect()},
        "recovered": {"cost": Run.open(result.out / "recovered").denoiser.inspect()},
        "export": {key: result.exported[key] for key in ("packages", "clips", "passed")},
        "commit": git_revision(),
        "hardware": hardware(),
        "versions": versions(),
    }


def _size(result: DemoResult, name: str) -> dict[str, float]:
    sampling = result.config.few if MODELS[name].few else result.config.sampling
    return {
        "parameters": Run.open(result.out / MODELS[name].run).denoiser.describe()["parameters"],
        "evaluations": sampling.steps * (2 if sampling.guidance != 1 else 1),
        "seconds_per_clip": result.samples[name].seconds_per_clip,
    }


def attribute_table(result: DemoResult, model: str) -> dict[str, dict[str, float]]:
    """Share of samples right in each attribute, with a 95 % interval, the chance level and the real clips' share."""
    scores = accuracies(result.config.world, result.samples[model].pairs)
    real = accuracies(result.config.world, result.real_seen)
    level = chance(result.config.world)
    return {
        name: {**dataclasses.asdict(score), "chance": level[name], "real": real[name].value}
        for name, score in scores.items()
        if name != ALL
    }


def _page(result: DemoResult, numbers: dict[str, Any]) -> Report:
    total = sum(stage["seconds"] for stage in result.stages.values())
    config = result.config
    facts = {
        "clip": f"{config.vae.clip} (frames x height x width)",
        "latents": f"{numbers['vae']['cost']['latent_shape']} ({config.vae.model.compression})",
        "time": f"{duration(total)} in all",
        "hardware": numbers["hardware"],
        "commit": numbers["commit"],
        "seeds": f"VAE {config.vae.seed}, transformer {config.dit.seed}, samples 0 to {config.samples - 1}",
    }
    lead = (
        "A video VAE and a text-to-video transformer, trained from nothing on this machine: clips drawn by the "
        "embedded world and four real ones, compressed, generated from prompts whose combinations were held out of "
        "training, and read back by a classical detector; then a transformer of half the size, cut out of the first "
        "and trained again with its help, the same drawing in few unguided steps, and that as packages for a phone."
    )
    sections = [
        _samples(result, numbers),
        _pruning(result),
        _packages(result),
        _vae(result, numbers),
        _training(result),
        _costs(result, numbers),
    ]
    return Report("From videos to text-to-video on two cores", lead, facts, sections)


def _samples(result: DemoResult, numbers: dict[str, Any]) -> Section:
    rows = []
    models = numbers["samples"]["models"]
    for key, model in models.items():
        for name, row in model["accuracy"].items():
            interval = f"{row['low']:.1%} to {row['high']:.1%}"
            shares = (f"{row['value']:.1%}", interval, f"{row['chance']:.1%}", f"{row['real']:.1%}")
            rows.append([MODELS[key].shown, name, *shares])
    columns = ["model", "attribute", "samples", "95 % interval", "chance", "real clips"]
    whole = models["dit"]
    costs = [
        [
            MODELS[key].shown,
            f"{model['parameters']:,}",
            model["evaluations"],
            f"{model['seconds_per_clip']:.3f}",
            f"{whole['seconds_per_clip'] / model['seconds_per_clip']:.1f}",
        ]
        for key, model in models.items()
    ]
    about = Table(["model", "parameters", "evaluations of the network", "seconds a clip", "times as fast"], costs)
    n, sampling = result.config.samples, result.config.sampling
    caption = f"Share of {n} samples whose attribute the detector reads as the prompt asks."
    prompts = result.samples["dit"].prompts[:SHOWN]
    gallery = Gallery(
        [GalleryRow(text, [_sample_view(result, key, i) for key in MODELS]) for i, text in enumerate(prompts)],
        f"The first {SHOWN} prompts, unselected. ✓ all attributes are right; ✗ at least one is not.",
        result.config.fps,
        columns=2,
    )
    text = (
        f"{sampling.steps} {sampling.solver} steps at guidance {sampling.guidance:g}, or {result.config.few.steps} "
        "without; held-out prompts. Seconds hold compiling and decoding."
    )
    return Section("Samples", text, [Table(columns, rows, caption), about, gallery])


def _sample_view(result: DemoResult, model: str, i: int) -> ClipView:
    samples = result.samples[model]
    good = attributes_right(result.config.world, samples.attributes[i], samples.detected[i])[ALL]
    return ClipView(samples.clips[i], MODELS[model].shown, good)


def _vae(result: DemoResult, numbers: dict[str, Any]) -> Section:
    cost, lattice = numbers["vae"]["cost"], numbers["vae"]["lattice"]
    text = (
        f"{cost['compression']}: a clip of {cost['clip']} becomes {cost['latent_shape']}, "
        f"{numbers['vae']['ratio']:g} RGB values for each latent value. On clips of one colour the decoder "
        f"prints a lattice of {lattice['amplitude']:.1f} grey levels."
    )
    named = {SOURCES[name]: reconstruction for name, reconstruction in result.reconstructions.items()}
    return Section("The compressed VAE", text, reconstruction_blocks(named, result.config.fps))


def _pruning(result: DemoResult) -> Section:
    found = result.pruned
    before, after = (sizes_of(shapes) for shapes in (found.plan.space.units.shapes, kept_shapes(found.keep)))
    rows = [[key, before[key], after[key]] for key in before]
    losses = (
        f"Held-out velocity loss {found.held_out['before']:.3f} before, {found.held_out['after']:.3f} after cutting, "
    )
    held_out = [line["eval_loss"] for line in read_metrics(result.out / "recovered") if "eval_loss" in line]
    text = f"{losses}{held_out[-1]:.3f} after recovery. What went and why: pruned/report.html."
    return Section("The smaller transformer", text, [Table(["", "before", "after"], rows)])


def _packages(result: DemoResult) -> Section:
    rows = [
        [package["name"], package["relative_error"], package["psnr"], package["bytes"] / 1e6]
        for package in result.exported["packages"]
    ]
    columns = ["package", "relative error", "PSNR, dB", "MB"]
    [clip] = result.exported["clips"]
    of_jax, of_packages = drawn_clip(result.out / "export", clip["clip"])
    views = [ClipView(of_jax, "JAX"), ClipView(of_packages, f"packages, {clip['psnr']:.1f} dB")]
    text = (
        "The distilled model for iOS 18, read back from disk, run op by op in fp16, and compared with JAX in float32; "
        "below, a clip drawn by the packages alone, from the same noise. More: export/report.html."
    )
    gallery = Gallery([GalleryRow(clip["prompt"], views)], fps=result.config.fps)
    return Section("Core ML packages", text, [Table(columns, rows), gallery])


def _training(result: DemoResult) -> Section:
    blocks = []
    for name in ("vae", "dit", "recovered", "distilled"):
        lines = read_metrics(result.out / name)
        held_out = [line for line in lines if "eval_loss" in line]
        series: dict[str, tuple[list[float], list[float]]] = {
            "training": ([line["step"] for line in lines], [line["loss"] for line in lines]),
            "held out": ([line["step"] for line in held_out], [line["eval_loss"] for line in held_out]),
        }
        blocks.append(Curves(name, series, log_y=True))
    return Section("Training", "Held-out values use the averaged weights and fixed noise and times.", blocks)


def _costs(result: DemoResult, numbers: dict[str, Any]) -> Section:
    stages = [[name, duration(stage["seconds"]), stage["loss"] or "–"] for name, stage in result.stages.items()]
    models = [
        [name, f"{cost['parameters']['total']:,}", f"{cost['flops']['total'] / 1e9:.3f}", cost["tokens"]]
        for name, cost in (
            ("VAE", numbers["vae"]["cost"]),
            *((MODELS[run].shown, numbers[run]["cost"]) for run in ("dit", "recovered")),
        )
    ]
    return Section(
        "Costs",
        blocks=[
            Table(["stage", "time", "last loss"], stages),
            Table(["network", "parameters", "GFLOP, one forward of one clip", "tokens"], models),
        ],
    )
