"""From the parameters of the flax transformer to the state dict of its PyTorch mirror."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flax.traverse_util import flatten_dict

from export.torch_dit import Dit
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.layers import unstack_blocks

# What a flax parameter is called in PyTorch. A flax kernel is [in, out], a PyTorch weight [out, in].
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "modulation": "modulation"}
HINT = "the config is of another model; name the parameters' own"


def load_params(dit: Dit, params: Mapping[str, Any]) -> None:
    """Copies flax parameters, scanned or not, into the mirror.

    Raises UserError naming a tensor that is missing, left over or of another shape than the mirror's.
    """
    found = state_dict(params)
    expected = dit.state_dict()
    for name, tensor in expected.items():
        if name not in found:
            raise UserError(f"tensor {name} of shape {tuple(tensor.shape)} is missing: {HINT}")
        if found[name].shape != tensor.shape:
            raise UserError(
                f"tensor {name} should be of shape {tuple(tensor.shape)}, not {tuple(found[name].shape)}: {HINT}"
            )
    if left_over := sorted(found.keys() - expected.keys()):
        raise UserError(f"tensor {left_over[0]} of shape {tuple(found[left_over[0]].shape)} has no place: {HINT}")
    dit.load_state_dict(found)


def state_dict(params: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Flax parameters under the mirror's names: block_3/ffn/up/kernel is blocks.3.ffn.up.weight, transposed."""
    unstacked = unstack_blocks(dict(params)) if "blocks" in params else params
    tensors = {}
    for (*modules, leaf), array in flatten_dict(unstacked).items():
        path = re.sub(r"^block_(\d+)", r"blocks.\1", ".".join(modules))
        values = np.asarray(array).T if leaf == "kernel" else np.asarray(array)
        tensors[f"{path}.{LEAVES.get(leaf, leaf)}"] = torch.tensor(values)
    return tensors
