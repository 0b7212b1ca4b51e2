"""Import of published weights as a transformer's run, with the VAE's run in it, for every command."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.claim import check_free
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.lock import new_folder
from mobile_video_jax.core.progress import Progress, say
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.interop import ltx_release, ltx_sampler, wan_release
from mobile_video_jax.interop.diffusers_folder import TRANSFORMERS, read_pipeline
from mobile_video_jax.interop.mapping import Sources, check_names, check_shapes, read_params, stacked
from mobile_video_jax.interop.release import Parts, Published, Release
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import EXPERT_FOLDERS, EXPERTS, Run
from mobile_video_jax.nn.module import init
from mobile_video_jax.parallel.abstract import abstract
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh, replicated
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.text.encoder import name_pipeline_text
from mobile_video_jax.text.encoder_name import PIPELINE_TEXTS
from mobile_video_jax.train.checkpoint import save_model
from mobile_video_jax.train.run import write_run
from mobile_video_jax.vae.latent_stats import LatentStats

# Openers of pipelines' folders by diffusers' class.
OPENERS: dict[str, Callable[[Path, str], Release]] = {
    **dict.fromkeys(ltx_sampler.PIPELINES, ltx_release.open_folder),
    **dict.fromkeys(wan_release.PIPELINES, wan_release.open_folder),
}
# Of a run whose weights can start from an image; the releases do not say in what share of their training they did.
IMAGE_PROBABILITY = 0.2


def open_diffusers(folder: Path) -> Release:
    """Opens a pipeline's folder in diffusers' layout. Raises UserError where it is another pipeline or incomplete."""
    pipeline = read_pipeline(folder, OPENERS, "an LTX-Video or Wan")
    return OPENERS[pipeline](folder, pipeline)


def import_weights(
    release: Release, out: Path, *, clip: str, frame_rate: float | None = None, scan: bool = True
) -> dict[str, Any]:
    """Writes the run `out`, for clips of one shape at `frame_rate` fps, and returns the command's JSON values.

    Tensors are read one by one and sharded over this process's devices, so that at most one is in memory beside the
    parameters. `scan` stacks the blocks, as in configs/dit.py:ltx. Raises UserError naming a setting or tensor that our
    networks do not have, and where `out` is not empty.
    """
    check_free(out)
    parts = release.parts(frame_rate)
    strides = parts.vae_network.config.strides
    encoder, width = name_pipeline_text(parts.text, parts.text_kind)
    if (parts.channels, parts.text_width) != (strides.channels, width):
        raise UserError(
            f"the transformer takes {parts.channels} channels and text states of {parts.text_width}, the VAE and the "
            f"text encoder give {strides.channels} and {width}: name parts of one release"
        )
    stage = DitStage(
        DitTraining(
            clip=str(ClipShape.parse(clip).check(strides)),
            compression=str(strides),
            text_encoder=encoder,
            text_width=width,
            text_tokens=PIPELINE_TEXTS[parts.text_kind].tokens,
            model=dataclasses.replace(parts.model, scan=scan),
            image_probability=IMAGE_PROBABILITY if parts.starts_from_images else 0.0,
            **parts.times,
        ),
        parts.sampling,
    )
    # Before anything is written.
    for name, transformer in zip(TRANSFORMERS, parts.transformers, strict=False):
        check_names(transformer.tensors, transformer.sources, name)
        sources = _sources(transformer, stage.denoiser)
        check_shapes(transformer.tensors, sources, stage.denoiser.parameter_shapes, name)
    check_names(parts.vae.tensors, parts.vae.sources, "vae")
    check_shapes(parts.vae.tensors, parts.vae.sources, _vae_shapes(parts), "vae")
    _check_stats(parts.stats, strides.channels)
    with new_folder(out) as folder:
        vae_parameters = _import_vae(parts, clip, folder / "vae")
        description = stage.description() | {"origin": parts.origin}
        if len(parts.transformers) > 1:
            _import_experts(parts, stage, description, folder)
            write_run(folder, EXPERTS, plain(stage.config), description, stage.sampling)
        else:
            _import_transformer(parts.transformers[0], stage.denoiser, folder)
            write_run(folder, "dit", plain(stage.config), description, stage.sampling)
    counts = {"parameters": description["parameters"], "vae_parameters": vae_parameters}
    return {"out": str(out), **counts, "text_encoder": encoder}


def _vae_shapes(parts: Parts) -> Any:
    vae, space = parts.vae_network, parts.vae_network.config.strides.space
    return nn.unbox(jax.eval_shape(lambda: init(vae, jax.random.key(0), jnp.zeros((1, 1, space, space, 3)))))


def _check_stats(stats: LatentStats, channels: int) -> None:
    """Raises UserError for statistics of other channels, or that latents cannot be divided by."""
    if not len(stats.mean) == len(stats.std) == channels:
        raise UserError(f"vae: its statistics are not of {channels} channels: download it again")
    if not (np.isfinite([stats.mean, stats.std]).all() and min(stats.std) > 0):
        raise UserError("vae: its statistics are not finite, or a deviation is not above 0: download it again")


def _import_vae(parts: Parts, clip: str, folder: Path) -> int:
    """Writes the VAE's run and returns its number of parameters."""
    vae, stats = parts.vae_network, parts.stats
    sharding = replicated(make_mesh(MeshConfig(data=-1), jax.local_devices()))
    target = jax.tree.map(lambda shape: abstract(shape, sharding), _vae_shapes(parts))
    save_model(folder, 0, _read(parts.vae.tensors, parts.vae.sources, target, "vae"))
    stats.save(folder)
    parameters = count_parameters(target)
    description = {"clip": clip, "compression": str(vae.config.strides), "parameters": parameters}
    write_run(folder, "vae", {"stage": "vae", "clip": clip, "model": dataclasses.asdict(vae.config)}, description)
    return parameters


def _import_experts(parts: Parts, stage: DitStage, description: dict[str, Any], folder: Path) -> None:
    """Writes each expert as a run of its own, with the VAE in it, which every command takes."""
    sampling = dataclasses.asdict(dataclasses.replace(parts.sampling, boundary=0.0, guidance_2=0.0))
    scales = (parts.sampling.guidance, parts.sampling.guidance_2 or parts.sampling.guidance)
    for name, published, scale in zip(EXPERT_FOLDERS, parts.transformers, scales, strict=True):
        say(f"the expert of {name.replace('_', ' ')}")
        _import_transformer(published, stage.denoiser, folder / name)
        Run.open(folder / "vae", "vae").copy(folder / name / "vae")
        write_run(folder / name, "dit", plain(stage.config), description, sampling | {"guidance": scale})


def _import_transformer(published: Published, denoiser: Denoiser, folder: Path) -> None:
    target = denoiser.abstract_params(make_mesh(MeshConfig(data=1, fsdp=-1), jax.local_devices()))
    save_model(folder, 0, _read(published.tensors, _sources(published, denoiser), target, "transformer"))


def _sources(published: Published, denoiser: Denoiser) -> Sources:
    """The sources of the network's parameters, as its blocks are stacked or not."""
    model = denoiser.config.transformer
    return stacked(published.sources, model.depth) if model.scan else published.sources


def _read(tensors: Any, sources: Sources, target: Any, name: str) -> Any:
    """Reads the parameters, each moved to its devices at once, and reports progress."""
    count = len(jax.tree.leaves(target))
    progress, done = Progress(f"{name}: tensors", count), 0

    def put(x: np.ndarray, shape: Any) -> jax.Array:
        nonlocal done
        done += 1
        if done % max(1, count // 10) == 0:
            progress.report(done)
        array: jax.Array = jax.device_put(x, shape.sharding)
        return array

    params = read_params(tensors, sources, target, name, put)
    say(f"{name}: writing")
    return params
