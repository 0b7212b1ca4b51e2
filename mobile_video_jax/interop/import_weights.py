"""Import of published LTX-Video weights as a transformer's run, with the VAE's run in it, for every command."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

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
from mobile_video_jax.interop import ltx_sampler, ltx_transformer, ltx_vae
from mobile_video_jax.interop.diffusers_folder import Component, open_network, read_pipeline, read_scheduler
from mobile_video_jax.interop.ltx_sampler import Sampler
from mobile_video_jax.interop.ltx_single_file import open_single_file, read_sampler
from mobile_video_jax.interop.mapping import Sources, check_names, read_params, stacked
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.sampling import Sampling
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
from mobile_video_jax.vae.ltx.model import LtxVae


class Release(NamedTuple):
    """An opened release of LTX-Video."""

    transformer: Component
    vae: Component
    sampler: Sampler
    text: Path  # folder with text_encoder/ and tokenizer/
    origin: dict[str, Any]  # what an export writes again: the pipeline's class and its scheduler's settings


def open_diffusers(folder: Path) -> Release:
    """Opens a pipeline's folder in diffusers' layout. Raises UserError where it is another pipeline or incomplete."""
    pipeline = read_pipeline(folder, ltx_sampler.PIPELINES, "an LTX-Video")
    scheduler = read_scheduler(folder / "scheduler", ltx_sampler.KIND)
    return Release(
        transformer=open_network(folder / "transformer", ltx_transformer.CLASS),
        vae=open_network(folder / "vae", ltx_vae.CLASS),
        sampler=ltx_sampler.parse_scheduler(scheduler, pipeline),
        text=folder,
        origin={"pipeline": pipeline, "scheduler": scheduler},
    )


def open_original(file: Path, text: Path) -> Release:
    """Opens a release's single file; `text` holds text_encoder/ and tokenizer/. Raises UserError as open_diffusers."""
    transformer, vae = open_single_file(file)
    return Release(transformer, vae, read_sampler(file, vae), text, origin={})


def import_weights(release: Release, out: Path, *, clip: str, frame_rate: float, scan: bool) -> dict[str, Any]:
    """Writes the run `out`, for clips of one shape at `frame_rate` fps, and returns the command's JSON values.

    Tensors are read one by one and sharded over this process's devices, so that at most one is in memory beside the
    parameters. `scan` stacks the blocks, as in configs/dit.py:ltx. Raises UserError naming a setting or tensor that our
    networks do not have, and where `out` is not empty.
    """
    check_free(out)
    vae_config = ltx_vae.vae_config(release.vae.settings)
    model = ltx_transformer.dit_config(
        release.transformer.settings,
        frame_rate=frame_rate,
        time_stride=vae_config.strides.time,
        space_stride=vae_config.strides.space,
        causal=release.sampler.causal,
    )
    encoder, width = name_pipeline_text(release.text, release.sampler.text)
    sizes = ltx_transformer.DEFAULTS | release.transformer.settings
    channels, text_width = sizes["in_channels"], sizes["caption_channels"]
    if (channels, text_width) != (vae_config.channels, width):
        raise UserError(
            f"the transformer takes {channels} channels and text states of {text_width}, the VAE and the text encoder "
            f"give {vae_config.channels} and {width}: name parts of one release"
        )
    stage = DitStage(
        DitTraining(
            clip=str(ClipShape.parse(clip).check(vae_config.strides)),
            compression=str(vae_config.strides),
            text_encoder=encoder,
            text_width=width,
            text_tokens=PIPELINE_TEXTS[release.sampler.text].tokens,
            time_shift=release.sampler.shift,
            shift_follows_tokens=release.sampler.follows_tokens,
            time_terminal=release.sampler.terminal,
            time_schedule=release.sampler.schedule,
            model=dataclasses.replace(model, scan=scan),
        ),
        _sampling(release.sampler, frame_rate),
    )
    # Before anything is written.
    check_names(release.transformer.tensors, ltx_transformer.sources(model), "transformer")
    check_names(_network(release.vae), ltx_vae.sources(vae_config), "vae")
    with new_folder(out) as folder:
        vae_parameters = _import_vae(release.vae, LtxVae(vae_config), clip, folder / "vae")
        description = stage.description() | {"origin": release.origin}
        _import_transformer(release.transformer, stage.denoiser, folder)
        write_run(folder, "dit", plain(stage.config), description, stage.sampling)
    counts = {"parameters": description["parameters"], "vae_parameters": vae_parameters}
    return {"out": str(out), **counts, "text_encoder": encoder}


def _sampling(sampler: Sampler, frame_rate: float) -> Sampling:
    """Guidance and steps of the release's own settings; distilled models take their listed times and no guidance."""
    if sampler.times:
        return Sampling(len(sampler.times), guidance=1.0, frame_rate=frame_rate, times=sampler.times)
    return Sampling(frame_rate=frame_rate, guidance=3.0)


def _import_vae(published: Component, vae: LtxVae, clip: str, folder: Path) -> int:
    """Writes the VAE's run and returns its number of parameters."""
    space = vae.config.strides.space
    boxed = jax.eval_shape(lambda: init(vae, jax.random.key(0), jnp.zeros((1, 1, space, space, 3))))
    sharding = replicated(make_mesh(MeshConfig(data=-1), jax.local_devices()))
    target = jax.tree.map(lambda shape: abstract(shape, sharding), nn.unbox(boxed))
    stats = ltx_vae.latent_stats(published.tensors, published.settings)
    if len(stats.mean) != (channels := vae.config.channels):
        raise UserError(f"vae: {' and '.join(ltx_vae.STATISTICS)} are not of {channels} channels: download it again")
    save_model(folder, 0, _read(_network(published), ltx_vae.sources(vae.config), target, "vae"))
    stats.save(folder)
    parameters = count_parameters(target)
    description = {"clip": clip, "compression": str(vae.config.strides), "parameters": parameters}
    write_run(folder, "vae", {"stage": "vae", "clip": clip, "model": dataclasses.asdict(vae.config)}, description)
    return parameters


def _network(vae: Component) -> dict[str, Any]:
    return {name: x for name, x in vae.tensors.items() if name not in ltx_vae.STATISTICS}


def _import_transformer(published: Component, denoiser: Denoiser, folder: Path) -> None:
    target = denoiser.abstract_params(make_mesh(MeshConfig(data=1, fsdp=-1), jax.local_devices()))
    model, sources = denoiser.config.model, ltx_transformer.sources(denoiser.config.model)
    layout = stacked(sources, model.depth) if model.scan else sources
    save_model(folder, 0, _read(published.tensors, layout, target, "transformer"))


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
