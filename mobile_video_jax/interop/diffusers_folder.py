"""Folder of a diffusers pipeline: model_index.json, and a folder with settings and tensors for each network."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.weights.huggingface import open_tensors, read_settings

INDEX, CONFIG, WEIGHTS = "model_index.json", "config.json", "diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler_config.json"
TRANSFORMERS = ("transformer", "transformer_2")  # the second where there are two experts, for the lesser times
SHARD_BYTES = 5_000_000_000
LibraryClass = tuple[str | None, str | None]  # as ("diffusers", "LTXVideoTransformer3DModel")


class Component(NamedTuple):
    """A network of a pipeline: its settings, and its tensors by name, each read when it is sliced."""

    settings: dict[str, Any]
    tensors: Mapping[str, Any]


def read_pipeline(folder: Path, classes: Collection[str], model: str) -> str:
    """The class of the pipeline in a folder. Raises UserError for one that is not among the `classes` of a model."""
    if not (folder / INDEX).is_file():
        raise UserError(f"{folder / INDEX} is missing: name the folder of a pipeline in diffusers' layout")
    name = read_settings(folder / INDEX).get("_class_name")
    if name not in classes:
        raise UserError(f"{folder} is of {name}: name the folder of {model} pipeline, of {' or '.join(classes)}")
    return str(name)


def open_network(folder: Path, kind: str) -> Component:
    """Opens a network's folder. Raises UserError where a file is missing, damaged, or of another class than `kind`."""
    return Component(_read_settings(folder / CONFIG, kind), open_tensors(folder, WEIGHTS))


def read_scheduler(folder: Path, kind: str) -> dict[str, Any]:
    """Reads a scheduler's settings. Raises UserError as open_network does."""
    return _read_settings(folder / SCHEDULER, kind)


def _read_settings(path: Path, kind: str) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} is missing: download the folder again")
    settings = read_settings(path)
    if (name := settings.get("_class_name")) != kind:
        raise UserError(f"{path} is of {name}, not {kind}: name the folder of one pipeline")
    return settings


def write_network(folder: Path, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a network's settings and tensors, above SHARD_BYTES as shards with an index."""
    folder.mkdir(parents=True)
    write_json(folder / CONFIG, settings)
    shards = list(_shards(tensors))
    names = [WEIGHTS]
    if len(shards) > 1:
        stem = WEIGHTS.removesuffix(".safetensors")
        names = [f"{stem}-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        total = sum(x.nbytes for x in tensors.values())
        write_json(folder / f"{WEIGHTS}.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name, {"format": "pt"})


def _shards(tensors: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    shard: dict[str, np.ndarray] = {}
    for name, tensor in sorted(tensors.items()):
        if shard and sum(x.nbytes for x in shard.values()) + tensor.nbytes > SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


def write_index(folder: Path, settings: Mapping[str, Any], components: Mapping[str, LibraryClass]) -> None:
    """Writes model_index.json: settings, and library and class of each component, (None, None) for a missing one."""
    index = {**settings, **{name: list(pair) for name, pair in components.items()}}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
