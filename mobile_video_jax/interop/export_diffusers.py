"""Export of an imported or further trained LTX-Video run as a diffusers pipeline's folder."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.claim import check_free
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.core.lock import new_folder
from mobile_video_jax.interop import ltx_sampler, ltx_transformer, ltx_vae
from mobile_video_jax.interop.diffusers_folder import SCHEDULER, LibraryClass, write_index, write_network
from mobile_video_jax.interop.ltx_sampler import Sampler
from mobile_video_jax.interop.mapping import published, stacked
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.text.encoder import name_pipeline_text
from mobile_video_jax.vae.ltx.model import LtxVae

DTYPES = {"float32": np.float32, "bfloat16": jnp.bfloat16, "float16": np.float16}
TEXT: dict[str, LibraryClass] = {
    "text_encoder": ("transformers", "T5EncoderModel"),
    "tokenizer": ("transformers", "T5Tokenizer"),
}


def export_diffusers(run: Run | Path, out: Path, *, dtype: str = "float32", text: Path | None = None) -> dict[str, Any]:
    """Writes the folder `out`, adapters merged, and returns the command's JSON values.

    `text` is the folder whose text_encoder/ and tokenizer/ are copied; without it the pipeline's user supplies them.
    Raises UserError where diffusers has no class for the network, such as one with pruned heads, and where `out` is not
    empty.
    """
    check_free(out)
    opened = Run.open(run)
    config, bundle = opened.denoiser.config, opened.vae()
    if not isinstance(bundle.vae, LtxVae):
        raise UserError(
            f"{opened.path / 'vae'} is none of LTX-Video's: only an imported run becomes a diffusers folder"
        )
    settings = ltx_transformer.settings(config.model, bundle.vae.config.channels, config.text_width)
    kind = config.text_encoder.partition("-")[0]
    if text and (name := name_pipeline_text(text, kind)[0]) != config.text_encoder:
        raise UserError(f"{run} was trained with text encoder {config.text_encoder}, {text} holds {name}")
    pipeline, scheduler = _sampler(opened)
    with new_folder(out) as folder:
        write_network(folder / "transformer", settings, _cast(_transformer(opened), dtype))
        vae = _cast(published(bundle.params, ltx_vae.sources(bundle.vae.config)), dtype)
        vae |= _lossless(ltx_vae.published_stats(bundle.stats), dtype)
        write_network(folder / "vae", ltx_vae.settings(bundle.vae.config), vae)
        (folder / "scheduler").mkdir()
        write_json(folder / "scheduler" / SCHEDULER, scheduler)
        for name in TEXT if text else ():
            shutil.copytree(Path(text or "", name), folder / name)
        missing: dict[str, LibraryClass] = dict.fromkeys(TEXT, (None, None))
        components: dict[str, LibraryClass] = {
            "scheduler": ("diffusers", ltx_sampler.KIND),
            "transformer": ("diffusers", ltx_transformer.CLASS),
            "vae": ("diffusers", ltx_vae.CLASS),
        }
        write_index(folder, pipeline, components | (TEXT if text else missing))
    return {"out": str(out), "step": opened.step, "dtype": dtype, "text_encoder": bool(text)}


def _sampler(run: Run) -> tuple[str, dict[str, Any]]:
    """The class of the run's pipeline and its scheduler's settings: as published, where the run still samples so."""
    config = run.denoiser.config
    sampler = Sampler(
        shift=config.time_shift,
        follows_tokens=config.shift_follows_tokens,
        terminal=config.time_terminal,
        schedule=config.time_schedule,
        causal=config.model.rope_offset > 0,
        text=config.text_encoder.partition("-")[0],
    )
    origin = _origin(run)
    if origin and ltx_sampler.parse_scheduler(origin["scheduler"], origin["pipeline"]) == sampler:
        return origin["pipeline"], origin["scheduler"]
    return ltx_sampler.pipeline_class(sampler), ltx_sampler.scheduler_settings(sampler)


def _origin(run: Run) -> dict[str, Any]:
    """Class and scheduler of the pipeline that the run, or the run that it was trained from, was imported from."""
    while not run.record["description"].get("origin"):
        source = run.find(run.config.get("init_from") or "")
        if not run.config.get("init_from") or not source.is_dir():
            return {}
        run = Run.open(source)
    origin: dict[str, Any] = run.record["description"]["origin"]
    return origin


def _lossless(tensors: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """The tensors in `dtype` where it holds their values, as in a folder that was published in it; else as they are."""
    cast = _cast(tensors, dtype)
    return {name: cast[name] if np.array_equal(cast[name].astype(x.dtype), x) else x for name, x in tensors.items()}


def _transformer(run: Run) -> dict[str, np.ndarray]:
    params = run.sharded_params(make_mesh(MeshConfig(), jax.local_devices()[:1]))
    model, sources = run.denoiser.config.model, ltx_transformer.sources(run.denoiser.config.model)
    return published(params, stacked(sources, model.depth) if model.scan else sources)


def _cast(tensors: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    return {name: x.astype(DTYPES[dtype]) for name, x in tensors.items()}
