"""Hugging Face's folders of a model: its config, and its published weights as the parameters of a flax module."""

import hashlib
import json
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

CONFIG = "config.json"
TOKENIZERS = ("tokenizer.json", "spiece.model")
WEIGHTS = "model.safetensors"


def read_config(folder: Path, model_types: tuple[str, ...]) -> dict[str, Any]:
    """What config.json says. Raises UserError when it is missing or of a model type that is not among `model_types`."""
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{path} is missing: name the folder of a model in Hugging Face's layout")
    settings = read_settings(path)
    found = settings.get("model_type")
    if found not in model_types:
        raise UserError(f"{path} is of model_type {found}: name a folder of {' or '.join(model_types)}")
    return settings


def read_settings(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. Raises UserError where it is damaged."""
    try:
        settings = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): download it again") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds no settings: download it again")
    return settings


def weight_files(folder: Path, weights: str = WEIGHTS) -> list[Path]:
    """The file `weights` of a folder, or else the shards that its index names. Raises UserError when one is missing.

    Pickled weights are never read: opening a pickle runs whatever code it holds.
    """
    files, index = [folder / weights], folder / f"{weights}.index.json"
    if not files[0].is_file() and index.is_file():
        shards = sorted(set(read_settings(index).get("weight_map", {}).values()))
        if outside := [shard for shard in shards if Path(shard).name != shard]:
            raise UserError(f"{index} names {outside[0]}, which is no file beside it: download the folder again")
        files = [folder / shard for shard in shards]
    for file in files:
        if not file.is_file():
            pickled = sorted(path.name for path in folder.glob("*pytorch_model*.bin"))
            hint = f"convert {pickled[0]} to safetensors" if pickled else "download the model's safetensors files"
            raise UserError(f"{file} is missing: {hint}")
    return files


def fingerprint(folder: Path, tokenizer: Path) -> str:
    """8 hex digits that tell models apart wherever they lie: of the SHA-256 of config, tokenizer and weight files.

    Whole files, because two fine-tunes of one model differ in nothing but the numbers.
    """
    digest = hashlib.sha256()
    for path in (folder / CONFIG, tokenizer, *weight_files(folder)):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:8]


def open_tensors(path: Path, weights: str = WEIGHTS) -> dict[str, Any]:
    """The tensors of a safetensors file, or of a folder's file `weights`, by name; each is read when it is sliced.

    Raises UserError for a file that is missing or damaged.
    """
    tensors: dict[str, Any] = {}
    for file in [path] if path.is_file() else weight_files(path, weights):
        try:
            opened = safe_open(file, framework="numpy")
        except SafetensorError as error:
            raise UserError(f"{file} is damaged ({error}): download it again") from error
        tensors |= {name: opened.get_slice(name) for name in opened.offset_keys()}
    return tensors


def read_params(
    path: Path, module: nn.Module, modules: Mapping[str, str], ignored: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Reads a safetensors file, or a folder's, as the float32 parameters of `module`, called with token ids and mask.

    `modules` gives the published name of each module of the flax tree; {i} stands for the same number in both. Tensors
    whose names start with one of `ignored` are of no use to the module. Raises UserError naming the tensor when one is
    missing, left over or of another shape than the module's.
    """
    tensors, shapes = open_tensors(path), _shapes(module)
    names = {place: _published_name(place, modules) for place in shapes}
    left_over = [name for name in tensors.keys() - set(names.values()) if not name.startswith(ignored)]
    if left_over:
        shape = tuple(tensors[min(left_over)].get_shape())
        raise UserError(
            f"{path}: tensor {min(left_over)} has no place in {type(module).__name__}; its shape is {shape}"
        )
    params = {}
    for place, shape in shapes.items():
        # PyTorch keeps a linear layer's weight as [out, in], flax as [in, out].
        transposed = place[-1] == "kernel"
        tensor = _take(tensors, names[place], shape[::-1] if transposed else shape, path)
        params[place] = jnp.asarray(tensor.T if transposed else tensor, jnp.float32)
    return unflatten_dict(params)


def _shapes(module: nn.Module) -> dict[tuple[str, ...], tuple[int, ...]]:
    key = jax.eval_shape(lambda: jax.random.key(0))
    ids, mask = jax.ShapeDtypeStruct((1, 1), jnp.int32), jax.ShapeDtypeStruct((1, 1), jnp.bool_)
    params = jax.eval_shape(module.init, key, ids, mask)["params"]
    return {place: leaf.shape for place, leaf in flatten_dict(params).items()}


def _published_name(place: tuple[str, ...], modules: Mapping[str, str]) -> str:
    module = "/".join(place[:-1])
    number = re.search(r"\d+", module)
    prefix = modules[re.sub(r"\d+", "{i}", module)].format(i=number and number[0])
    return f"{prefix}.{'bias' if place[-1] == 'bias' else 'weight'}"


def _take(tensors: dict[str, Any], name: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    if name not in tensors:
        raise UserError(f"{path}: tensor {name} of shape {shape} is missing")
    found = tuple(tensors[name].get_shape())
    if found != shape:
        raise UserError(f"{path}: tensor {name} should be of shape {shape}, not {found}")
    return tensors[name][:]
