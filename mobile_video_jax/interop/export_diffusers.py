"""Export of an imported or further trained run as a diffusers pipeline's folder."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.claim import check_free
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.core.lock import new_folder
from mobile_video_jax.interop import ltx_release, wan_release
from mobile_video_jax.interop.diffusers_folder import SCHEDULER, TRANSFORMERS, LibraryClass, write_index, write_network
from mobile_video_jax.interop.mapping import Source, published, stacked
from mobile_video_jax.interop.release import Origin, PipelineFolder
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.vae import VaeBundle
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.text.encoder import name_pipeline_text
from mobile_video_jax.vae.ltx.model import LtxVae
from mobile_video_jax.vae.wan.model import WanVae

DTYPES = {"float32": np.float32, "bfloat16": jnp.bfloat16, "float16": np.float16}
# By the class of the run's VAE.
FAMILIES: dict[type, Callable[[Run, VaeBundle, Origin], PipelineFolder]] = {
    LtxVae: ltx_release.pipeline_folder,
    WanVae: wan_release.pipeline_folder,
}


def export_diffusers(run: Run | Path, out: Path, *, dtype: str = "float32", text: Path | None = None) -> dict[str, Any]:
    """Writes the folder `out`, adapters merged, and returns the command's JSON values.

    `text` is the folder whose text_encoder/ and tokenizer/ are copied; without it the pipeline's user supplies them.
    Raises UserError where diffusers has no class for the network, such as one with pruned heads, and where `out` is not
    empty.
    """
    check_free(out)
    opened = Run.open(run)
    config, bundle = opened.sampled.config, opened.vae()
    if type(bundle.vae) not in FAMILIES:
        raise UserError(f"{opened.path / 'vae'} is no published one: only an imported run becomes a diffusers folder")
    described = FAMILIES[type(bundle.vae)](opened, bundle, _origin(opened))
    kind = config.text_encoder.partition("-")[0]
    if text and (name := name_pipeline_text(text, kind)[0]) != config.text_encoder:
        raise UserError(f"{run} was trained with text encoder {config.text_encoder}, {text} holds {name}")
    with new_folder(out) as folder:
        for name, expert in zip(TRANSFORMERS, opened.experts, strict=False):
            transformer = _transformer(expert, described.transformer_sources)
            write_network(folder / name, described.transformer, _cast(transformer, dtype))
            del transformer  # before the next one's
        vae = _cast(published(bundle.params, described.vae_sources), dtype)
        write_network(folder / "vae", described.vae, vae | _lossless(described.statistics, dtype))
        (folder / "scheduler").mkdir()
        write_json(folder / "scheduler" / SCHEDULER, described.scheduler)
        for name in described.text if text else ():
            shutil.copytree(Path(text or "", name), folder / name)
        write_index(folder, described.index, _components(described, text is not None, len(opened.experts)))
    return {"out": str(out), "step": opened.step, "dtype": dtype, "text_encoder": bool(text)}


def _components(described: PipelineFolder, text: bool, experts: int) -> dict[str, LibraryClass]:
    """Library and class of every component, (None, None) for those that are not in the folder."""
    parts = {name: getattr(described, name)["_class_name"] for name in ("scheduler", "transformer", "vae")}
    absent = (*described.missing, *(() if text else described.text))
    transformers = dict.fromkeys(TRANSFORMERS[:experts], parts["transformer"])
    return {
        **{name: ("diffusers", kind) for name, kind in (parts | transformers).items()},
        **(described.text if text else {}),
        **dict.fromkeys(absent, (None, None)),
    }


def _origin(run: Run) -> Origin:
    """Class and scheduler of the pipeline that the run, or the run that it was trained from, was imported from."""
    while not run.record["description"].get("origin"):
        if not run.config.get("init_from"):
            return {}
        try:
            run = Run.open(run.find(run.config["init_from"]))
        except UserError:  # it was removed: the run's own sampler says all but what has no effect
            return {}
    origin: Origin = run.record["description"]["origin"]
    return origin


def _lossless(tensors: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """The tensors in `dtype` where it holds their values, as in a folder that was published in it; else as they are."""
    cast = _cast(tensors, dtype)
    return {name: cast[name] if np.array_equal(cast[name].astype(x.dtype), x) else x for name, x in tensors.items()}


def _transformer(run: Run, sources: dict[str, Source]) -> dict[str, np.ndarray]:
    params = run.sharded_params(make_mesh(MeshConfig(), jax.local_devices()[:1]))
    model = run.denoiser.config.transformer
    return published(params, stacked(sources, model.depth) if model.scan else sources)


def _cast(tensors: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    return {name: x.astype(DTYPES[dtype]) for name, x in tensors.items()}
