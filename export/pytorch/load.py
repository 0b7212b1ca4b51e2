"""Flax parameters copied into a network's PyTorch mirror."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch import nn

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.stacking import unstack_blocks

# The PyTorch name of each flax parameter.
NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias", "modulation": "modulation"}
HINT = "the config is of another model; name the parameters' own"


def load_params(mirror: nn.Module, params: Mapping[str, Any]) -> None:
    """Copies flax parameters, scanned or not, into the mirror.

    Raises UserError naming a tensor that is missing, left over or of another shape than the mirror's.
    """
    tensors = state_dict(params)
    shapes = {name: tuple(tensor.shape) for name, tensor in mirror.state_dict().items()}
    for name, shape in shapes.items():
        if name not in tensors:
            raise UserError(f"tensor {name} of shape {shape} is missing: {HINT}")
        if tuple(tensors[name].shape) != shape:
            raise UserError(f"tensor {name} should be of shape {shape}, not {tuple(tensors[name].shape)}: {HINT}")
    if unknown := sorted(tensors.keys() - shapes.keys()):
        raise UserError(f"tensor {unknown[0]} of shape {tuple(tensors[unknown[0]].shape)} has no place: {HINT}")
    mirror.load_state_dict(tensors, assign=True)


def state_dict(params: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Flax parameters under the mirror's names: block_3/ffn/up/kernel is blocks.3.ffn.up.weight.

    A flax kernel, of a dense layer or a convolution, is [..., in, out], a PyTorch weight [out, in, ...].
    """
    arrays = jax.tree.map(np.asarray, dict(params))  # views, so that a stack is split into blocks without copies
    tensors = {}
    unstacked = unstack_blocks(arrays)
    for (*modules, leaf), array in flatten_dict(unstacked).items():
        path = re.sub(r"^block_(\d+)", r"blocks.\1", ".".join(modules))
        values = np.moveaxis(array, (-1, -2), (0, 1)) if leaf == "kernel" else array
        tensors[f"{path}.{NAMES.get(leaf, leaf)}"] = torch.tensor(values)
    return tensors
