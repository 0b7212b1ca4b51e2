"""Model folders in Hugging Face's layout: config.json, and safetensors weights as parameters of a flax module."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json
from mobile_video_jax.weights.float8 import FLOAT8, Float8, scaled

CONFIG = "config.json"
TOKENIZERS = ("tokenizer.json", "spiece.model")
WEIGHTS = "model.safetensors"


def read_config(folder: Path, model_types: tuple[str, ...]) -> dict[str, Any]:
    """Reads config.json. Raises UserError where it is missing or its model_type is not among `model_types`."""
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{path} is missing: name the folder of a model in Hugging Face's layout")
    settings = read_settings(path)
    if "quantization_config" in settings:
        raise UserError(f"{path} has a quantization_config: quantised weights are not read, download the model's own")
    model_type = settings.get("model_type")
    if model_type not in model_types:
        raise UserError(f"{path} is of model_type {model_type}: name a folder of {' or '.join(model_types)}")
    return settings


def read_settings(path: Path) -> dict[str, Any]:
    """Reads a JSON object. Raises UserError where the file is damaged."""
    advice = "download it again"
    settings = read_json(path, missing=f"{path} does not exist: {advice}", advice=advice)
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds no settings: {advice}")
    return settings


def weight_files(folder: Path, weights: str = WEIGHTS) -> list[Path]:
    """The file `weights` of a folder, or else the shards in its index, or else those of its only variant.

    Variants are named for their dtype, as model.fp16.safetensors. Raises UserError where a file is missing. Pickled
    weights are never read: opening a pickle runs whatever code it contains.
    """
    files, index = [folder / weights], folder / f"{weights}.index.json"
    if not files[0].is_file() and not index.is_file():
        variant = _variant(folder, weights)
        if variant and variant.suffix == ".safetensors":
            return [variant]
        index = variant or index
    if not files[0].is_file() and index.is_file():
        shards = sorted(set(read_settings(index).get("weight_map", {}).values()))
        if outside := [shard for shard in shards if Path(shard).name != shard]:
            raise UserError(f"{index} names {outside[0]}, which is not a file beside it: download the folder again")
        files = [folder / shard for shard in shards]
    for file in files:
        if not file.is_file():
            pickled = sorted(path.name for path in folder.glob("*pytorch_model*.bin"))
            hint = f"convert {pickled[0]} to safetensors" if pickled else "download the model's safetensors files"
            raise UserError(f"{file} is missing: {hint}")
    return files


def _variant(folder: Path, weights: str) -> Path | None:
    """The file or the index of a folder's only variant of `weights`. Raises UserError where there are several."""
    files = [path for path in folder.glob(f"{Path(weights).stem}.*.safetensors") if "-of-" not in path.name]
    variants = sorted([*files, *folder.glob(f"{weights}.index.*.json")])
    if len(variants) > 1:
        names = " and ".join(path.name for path in variants)
        raise UserError(f"{folder} holds variants, {names}: rename the one to use to {weights}")
    return variants[0] if variants else None


def fingerprint(folder: Path, tokenizer: Path) -> str:
    """First 8 hex digits of the SHA-256 over config, tokenizer and weight files, whatever the folder's path.

    Whole files are hashed, because two fine-tunes of one model differ only in their weights.
    """
    digest = hashlib.sha256()
    for path in (folder / CONFIG, tokenizer, *weight_files(folder)):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:8]


def open_tensors(path: Path, weights: str = WEIGHTS) -> dict[str, Any]:
    """Tensors by name of a safetensors file, or of a folder's file `weights`; each is read when it is sliced.

    Tensors of fp8 are read as float32, times their scales. Raises UserError where a file is missing or damaged.
    """
    tensors: dict[str, Any] = {}
    for file in [path] if path.is_file() else weight_files(path, weights):
        opened = _open(file)
        tensors |= {name: opened.get_slice(name) for name in opened.offset_keys()}
        tensors |= {name: Float8(file, name) for name in opened.offset_keys() if tensors[name].get_dtype() in FLOAT8}
    return scaled(tensors)


def read_header(file: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file. Raises UserError where it is damaged."""
    with _open(file) as opened:
        return dict(opened.metadata() or {})


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="numpy")
    except SafetensorError as error:
        raise UserError(f"{file} is damaged ({error}): download it again") from error


def read_params(
    path: Path,
    module: nn.Module,
    modules: Mapping[str, str],
    ignored: tuple[str, ...] = (),
    *,
    keep_bfloat16: bool = False,
) -> dict[str, Any]:
    """Reads a safetensors file, or a folder's, as NumPy parameters of `module`, which takes token ids and mask.

    They are float32, but what the file holds in bfloat16 stays so with `keep_bfloat16`, which is half as large.

    `modules` maps each module of the flax tree to its published name; {i} is the same number in both. Tensors whose
    names start with one of `ignored` are skipped. Raises UserError naming the tensor where one is missing, not used by
    the module, or of another shape.
    """
    tensors, shapes = open_tensors(path), _shapes(module)
    names = {parameter: _published_name(parameter, modules) for parameter in shapes}
    unused = [name for name in tensors.keys() - set(names.values()) if not name.startswith(ignored)]
    if unused:
        shape = tuple(tensors[min(unused)].get_shape())
        raise UserError(f"{path}: tensor {min(unused)} has no place in {type(module).__name__}; its shape is {shape}")
    params = {}
    for parameter, shape in shapes.items():
        # PyTorch stores a linear layer's weight as [out, in], flax as [in, out].
        transposed = parameter[-1] == "kernel"
        tensor = _read(tensors, names[parameter], shape[::-1] if transposed else shape, path)
        dtype = jnp.bfloat16 if keep_bfloat16 and tensor.dtype == jnp.bfloat16 else np.float32
        params[parameter] = np.ascontiguousarray(tensor.T if transposed else tensor, dtype)
    nested: dict[str, Any] = unflatten_dict(params)
    return nested


def _shapes(module: nn.Module) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shape of each parameter by its path in the flax tree."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    ids, mask = jax.ShapeDtypeStruct((1, 1), jnp.int32), jax.ShapeDtypeStruct((1, 1), jnp.bool_)
    params = jax.eval_shape(module.init, key, ids, mask)["params"]
    return {parameter: leaf.shape for parameter, leaf in flatten_dict(params).items()}


def _published_name(parameter: tuple[str, ...], modules: Mapping[str, str]) -> str:
    module = "/".join(parameter[:-1])
    number = re.search(r"\d+", module)
    prefix = modules[re.sub(r"\d+", "{i}", module)].format(i=number and number[0])
    return f"{prefix}.{'bias' if parameter[-1] == 'bias' else 'weight'}"


def _read(tensors: dict[str, Any], name: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    if name not in tensors:
        raise UserError(f"{path}: tensor {name} of shape {shape} is missing")
    stored_shape = tuple(tensors[name].get_shape())
    if stored_shape != shape:
        raise UserError(f"{path}: tensor {name} should be of shape {shape}, not {stored_shape}")
    tensor: np.ndarray = tensors[name][:]
    return tensor
