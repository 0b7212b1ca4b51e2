"""Published LoRA files onto an imported run, and adapters of such runs as files, in both namings."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from mobile_video_jax.core.claim import check_free
from mobile_video_jax.core.config import from_mapping, plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.lock import new_folder
from mobile_video_jax.dit.config import LoraConfig
from mobile_video_jax.dit.lora import init_adapter, layer_name
from mobile_video_jax.interop import ltx_transformer, wan_transformer
from mobile_video_jax.interop.lora_names import ALPHA, COMFYUI, DIFFUSERS, split_name, to_diffusers, to_original
from mobile_video_jax.interop.mapping import Source
from mobile_video_jax.models.adapter import record_base, restore_adapter
from mobile_video_jax.models.run import VAE, Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.checkpoint import save_model
from mobile_video_jax.train.run import write_run
from mobile_video_jax.weights.huggingface import open_tensors, read_header

FILE = "pytorch_lora_weights.safetensors"  # diffusers' name
METADATA = "lora_adapter_metadata"  # of PEFT, in the header of diffusers' files
Factors = tuple[np.ndarray, np.ndarray]  # A [in, rank] and B [out, rank] as published, its scale in B


def import_lora(file: Path, base: Run, out: Path, *, steps: int = 0, solver: str = "") -> dict[str, Any]:
    """Writes the adapter's run `out` for the run `base`, and returns the command's JSON values.

    It is sampled as the base, or of one that was distilled in so many unguided `steps`, by its `solver`.
    Layers of lower rank are padded with zeros. Raises UserError for a tensor that is placed nowhere, for a layer with
    one factor, and for factors of other shapes.
    """
    check_free(out)
    family, sources = _family(base)
    factors = _read(file, family)
    layers = {source.name.removesuffix(".weight"): path for path, source in _linear(sources).items()}
    for module in sorted(factors.keys() - layers.keys()):
        raise UserError(f"{file}: {module} is no linear layer of {base}: use a LoRA of that model")
    placed = {layers[module]: pair for module, pair in factors.items()}
    rank = max(a.shape[1] for a, _ in placed.values())
    targets = tuple(sorted({layer_name(tuple(path.split("/"))[:-1]) for path in placed}))
    lora = LoraConfig(rank=rank, alpha=float(rank), targets=targets)
    stage = DitStage.of_run(base)
    shapes = jax.eval_shape(lambda rng, p: init_adapter(lora, rng, p), jax.random.key(0), stage.denoiser.boxed_shapes)
    adapter = _adapter(nn.unbox(shapes), placed, sources, file)
    config = dataclasses.replace(stage.config, lora=lora, init_from=str(base.path.absolute()))
    description = stage.description() | {"trainable_parameters": sum(x.size for x in jax.tree.leaves(adapter))}
    sampling = base.denoiser.sampling
    if steps:
        few: dict[str, Any] = {
            "steps": steps,
            "guidance": 1.0,
            "solver": solver or sampling.solver,
            "times": (),
            "reuse": (),
        }
        sampling = dataclasses.replace(sampling, **few)
    with new_folder(out) as folder:
        base.vae_run().copy(folder / VAE)
        record_base(folder, base.path, base.step)
        save_model(folder, 0, {"adapter": adapter, "base": {}})
        write_run(folder, "dit", plain(config), description, dataclasses.asdict(sampling))
    return {"out": str(out), "rank": rank, "layers": len(placed), "targets": list(targets)}


def export_lora(run: Run, out: Path, *, comfyui: bool, dtype: Any) -> dict[str, Any]:
    """Writes the adapter of `run` into the folder `out`, its scale in B, and returns the command's JSON values.

    Rows and columns of zeros that pad a rank are left out. Raises UserError for a run without an adapter.
    """
    check_free(out)
    lora = from_mapping(LoraConfig, run.config.get("lora", {}))
    if not lora.rank:
        raise UserError(f"{run} holds no adapter: export a run that was trained with lora.rank, or --format=diffusers")
    family, sources = _family(run)
    shapes = run.denoiser.abstract_params(make_mesh(MeshConfig(), jax.local_devices()[:1]))
    adapter = restore_adapter(run.path, lora, shapes, run.step)
    tensors: dict[str, np.ndarray] = {}
    for path, (a, b) in _layers(adapter).items():
        source = sources[f"{path}/kernel"]
        a, b = _trimmed(a, source.layout.to_published(lora.scale * b))
        if not a.shape[1]:
            continue
        module = source.name.removesuffix(".weight")
        name = f"{COMFYUI}{to_original(module, family)}" if comfyui else f"{DIFFUSERS}{module}"
        tensors |= {f"{name}.lora_A.weight": a.T, f"{name}.lora_B.weight": b}
    with new_folder(out) as folder:
        save_file({name: np.ascontiguousarray(x.astype(dtype)) for name, x in tensors.items()}, folder / FILE)
    return {"out": str(out), "layers": len(tensors) // 2, "names": "comfyui" if comfyui else "diffusers"}


def _family(run: Run) -> tuple[str, dict[str, Source]]:
    """Whose names the run's network has, and the sources of its parameters. Raises UserError for one of our own."""
    config = run.denoiser.config
    kind = config.text_encoder.partition("-")[0]
    if kind == "wan":
        return "wan", wan_transformer.sources(config.transformer)
    if kind.startswith("ltx"):
        return "ltx", ltx_transformer.sources(config.transformer)
    raise UserError(f"{run} is not of LTX-Video or Wan: published adapters fit imported runs alone")


def _linear(sources: Mapping[str, Source]) -> dict[str, Source]:
    """Sources of the kernels that are published as [out, in]."""
    return {
        path: source
        for path, source in sources.items()
        if path.endswith("/kernel") and not source.name.startswith("patch_embedding")
    }


def _read(file: Path, family: str) -> dict[str, Factors]:
    """Factors by diffusers' module name; the scale is alpha / rank, 1 where no alpha is given."""
    modules: dict[str, dict[str, np.ndarray]] = {}
    for name, x in open_tensors(file).items():
        module, role = split_name(name)
        modules.setdefault(to_diffusers(module, family), {})[role] = np.asarray(x[...]).astype(np.float32)
    alphas = json.loads(read_header(file).get(METADATA, "{}"))
    general = alphas.get(f"{DIFFUSERS}lora_alpha", alphas.get("lora_alpha"))
    pattern = alphas.get(f"{DIFFUSERS}alpha_pattern", alphas.get("alpha_pattern")) or {}
    factors = {}
    for module, parts in modules.items():
        if not {"a", "b"} <= parts.keys() or parts["a"].shape[0] != parts["b"].shape[1]:
            raise UserError(f"{file}: {module} has no two factors of one rank: download it again")
        rank = len(parts["a"])
        alpha = parts.get(ALPHA, pattern.get(module, general))
        scale = 1.0 if alpha is None else float(np.asarray(alpha).reshape(())) / rank
        factors[module] = (parts["a"].T, parts["b"] if scale == 1 else parts["b"] * np.float32(scale))
    if not factors:
        raise UserError(f"{file} holds no factors: name a LoRA's file")
    return factors


def _adapter(shapes: Any, placed: Mapping[str, Factors], sources: Mapping[str, Source], file: Path) -> Any:
    """The adapter's tree; layers that the file does not have are zero."""
    tree = {}
    for path, shape in flatten_dict(shapes, sep="/").items():
        layer, _, factor = path.rpartition("/")
        if not layer.startswith("blocks/block/"):
            tree[path] = _factor(shape.shape, factor, f"{layer}/kernel", placed, sources, file)
            continue
        names = [f"block_{i}/{layer.removeprefix('blocks/block/')}/kernel" for i in range(shape.shape[0])]
        tree[path] = np.stack([_factor(shape.shape[1:], factor, name, placed, sources, file) for name in names])
    return unflatten_dict({path: jnp.asarray(x) for path, x in tree.items()}, sep="/")


def _factor(
    shape: tuple[int, ...],
    factor: str,
    path: str,
    placed: Mapping[str, Factors],
    sources: Mapping[str, Source],
    file: Path,
) -> np.ndarray:
    """A [in, rank] or B [rank, out] of one layer, padded to the adapter's rank."""
    padded = np.zeros(shape, np.float32)
    if path not in placed:
        return padded
    a, b = placed[path]
    values = a if factor == "a" else b
    if values.shape[0] != (size := shape[0] if factor == "a" else shape[1]):
        raise UserError(f"{file}: the factor of {sources[path].name} has {values.shape[0]} channels, not {size}")
    rank = values.shape[1]
    if factor == "a":
        padded[:, :rank] = values
    else:
        padded[:rank] = sources[path].layout.to_ours(values)
    return padded


def _layers(adapter: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A [in, rank] and B [rank, out] by the path of a layer in the network of separate blocks."""
    flat = {path: np.asarray(x) for path, x in flatten_dict(adapter, sep="/").items()}
    layers = {}
    for path in sorted({path.rpartition("/")[0] for path in flat}):
        a, b = flat[f"{path}/a"], flat[f"{path}/b"]
        if not path.startswith("blocks/block/"):
            layers[path] = (a, b)
            continue
        name = path.removeprefix("blocks/block/")
        layers |= {f"block_{i}/{name}": pair for i, pair in enumerate(zip(a, b, strict=True))}
    return layers


def _trimmed(a: np.ndarray, b: np.ndarray) -> Factors:
    """Factors [in, rank] and [out, rank] without the columns at the end that are zero in both."""
    used = np.flatnonzero(np.any(a, axis=0) | np.any(b, axis=0))
    rank = int(used[-1]) + 1 if len(used) else 0
    return a[:, :rank], b[:, :rank]
