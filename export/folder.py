"""The folder that a run is exported to: packages, golden arrays, PyTorch weights, tokenizer and manifest.json."""

import dataclasses
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from export import compress
from export.form import FORMS
from export.package import Part, write_package
from export.parts import dit_parts, text_part, vae_parts
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing, write_json
from mobile_video_jax.core.revision import git_revision, versions
from mobile_video_jax.diffusion.timesteps import time_grid
from mobile_video_jax.nn.embed import time_features
from mobile_video_jax.stages.bundle import VaeBundle
from mobile_video_jax.stages.generate import Generator
from mobile_video_jax.train.run import read_run


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a run is exported: kind of weights, FFN tiles (one number, or one for each block), sampling steps, and the
    megabytes in fp16 that a part of the transformer may take.

    `vae` is a run whose decoder is taken instead, `clip` another shape than the run's own, `text_encoder` tells where
    the run's encoder lies. `form` is the transformer's, a key of form.FORMS; the other networks have one for both.
    """

    weights: str = "fp16"
    tiles: tuple[int, ...] = (4,)
    steps: int = 4
    chunk_megabytes: int = 1000
    vae: Path | None = None
    clip: str = ""
    text_encoder: str = ""
    form: str = "phone"


def export_run(run: Path, out: Path, settings: Settings, progress: Callable[[str], None]) -> dict[str, Any]:
    """Writes the folder, whole or not at all, and returns its manifest.

    Raises UserError for a folder that holds something, for a run that is missing, damaged or without latent statistics,
    and for settings that do not fit it.
    """
    compress.check(settings.weights)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty: name a new folder with --out")
    record = read_run(run)
    with replacing(out) as folder:
        folder.mkdir(parents=True)
        if record["stage"] == "vae":
            bundle = VaeBundle.load(run)
            clip = ClipShape.parse(settings.clip or record["config"]["clip"]).check(bundle.vae.config.strides)
            parts, described = vae_parts(bundle, clip, folder), _of_vae(bundle, clip)
        else:
            generator = Generator.load(run, settings.vae, settings.text_encoder, clip=settings.clip)
            parts, described = _parts(generator, settings, folder), _of_transformer(generator, settings)
        packages = [write_package(part, folder, settings.weights, progress) for part in parts]
        origin = {"model": str(run), "stage": record["stage"], "commit": git_revision(), "versions": _versions()}
        manifest = {**origin, **described, "packages": packages}
        write_json(folder / "manifest.json", manifest)
    return manifest


def _parts(generator: Generator, settings: Settings, folder: Path) -> Iterator[Part]:
    """All packages of a transformer's run, made one after the other."""
    generator.text_encoder.tokenizer.save(str(folder / "tokenizer.json"))
    config = generator.stage.config
    yield text_part(generator.text_encoder, settings.text_encoder or config.text_encoder, config.text_tokens, folder)
    limit = settings.chunk_megabytes * 1_000_000
    yield from dit_parts(generator, FORMS[settings.form], _tiles(generator, settings), settings.steps, limit, folder)
    yield from vae_parts(generator.vae, generator.clip, folder)


def _tiles(generator: Generator, settings: Settings) -> tuple[int, ...]:
    depth, tiles = len(generator.stage.config.model.block_shapes), settings.tiles
    if len(tiles) not in (1, depth):
        raise UserError(f"--tiles names {len(tiles)} numbers: use one, or {depth}, one for each block")
    return tiles * depth if len(tiles) == 1 else tiles


def _of_vae(bundle: VaeBundle, clip: ClipShape) -> dict[str, Any]:
    """What the manifest says of latents: those that the decoder takes are latents * std + mean."""
    strides = bundle.vae.config.strides
    return {
        "clip": str(clip),
        "compression": str(strides),
        "latent_shape": [*clip.latent(strides), strides.channels],
        "latents": {"mean": list(bundle.stats.mean), "std": list(bundle.stats.std)},
    }


def _of_transformer(generator: Generator, settings: Settings) -> dict[str, Any]:
    """What it says of text and sampling: from times[i] to times[i + 1] latents move by their difference x velocity."""
    config = generator.stage.config
    times = time_grid(settings.steps, shift=generator.time_shift)
    features = time_features(times[:-1], config.model.time_features)
    sampler = {"solver": "euler", "steps": settings.steps, "noise_scale": 1.0, "guidance": 1.0}
    return {
        **_of_vae(generator.vae, generator.clip),
        "text": {"encoder": config.text_encoder, "tokens": config.text_tokens, "width": config.text_width, "pad_id": 0},
        "sampler": {**sampler, "times": np.asarray(times).tolist(), "time_features": np.asarray(features).tolist()},
        "form": settings.form,
        "tiles": list(_tiles(generator, settings)),
    }


def _versions() -> dict[str, str]:
    return versions() | {name: version(name) for name in ("torch", "coremltools")}
