"""Reading a Qwen2.5-VL from a local folder in Hugging Face's layout."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.weights import huggingface

# What newer files call the two halves, and what published ones do.
PREFIXES = {"model.visual.": "visual.", "model.language_model.": "model."}


def read_params(folder: Path, target: Any) -> Any:
    """Parameters of the shapes and dtypes of `target`, sharded like it.

    Raises UserError naming the tensor where one is missing or of another shape.
    """
    tensors = {_published(name): tensor for name, tensor in huggingface.open_tensors(folder).items()}
    flat = {path: _read(tensors, path, leaf, folder) for path, leaf in flatten_dict(target).items()}
    params: Any = unflatten_dict(flat)
    return params


def tensor_name(path: tuple[str, ...]) -> str:
    """The published name of a parameter: visual/blocks_0/attn_qkv/kernel is visual.blocks.0.attn.qkv.weight."""
    *modules, last = path
    kind = "bias" if last == "bias" else "weight"
    if modules[:2] == ["model", "lm_head"]:
        return "lm_head.weight"
    if last == "embed_tokens_weight":
        return "model.embed_tokens.weight"
    names = ".".join(modules)
    for inner in ("attn_", "patch_embed_", "merger_mlp_", "merger_"):  # of self_attn_ too
        names = names.replace(inner, f"{inner[:-1].replace('_mlp', '.mlp')}.")
    numbered = re.sub(r"_([0-9]+)", r".\1", names)
    return f"{numbered}.{kind}"


def _published(name: str) -> str:
    for newer, published in PREFIXES.items():
        if name.startswith(newer):
            return name.replace(newer, published, 1)
    return name


def _read(tensors: Mapping[str, Any], path: tuple[str, ...], leaf: Any, folder: Path) -> jax.Array:
    name = tensor_name(path)
    if name not in tensors:
        raise UserError(f"{folder}: tensor {name} of a Qwen2.5-VL is missing: download the folder again")
    tensor = np.asarray(tensors[name][:])
    if path[-1] == "kernel":  # [out, in] there, also of a convolution whose steps are its size
        tensor = tensor.reshape(tensor.shape[0], -1).T
    if tensor.shape != leaf.shape:
        raise UserError(f"{folder}: tensor {name} is of shape {tensor.shape}, config.json says {leaf.shape}")
    placed: jax.Array = jax.device_put(tensor.astype(leaf.dtype), leaf.sharding)
    return placed
