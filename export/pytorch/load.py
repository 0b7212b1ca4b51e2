"""From the parameters of a flax network to the state dict of its PyTorch mirror."""

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

# What a flax parameter is called in PyTorch.
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias", "modulation": "modulation"}
HINT = "the config is of another model; name the parameters' own"


def load_params(mirror: nn.Module, params: Mapping[str, Any]) -> None:
    """Copies flax parameters, scanned or not, into the mirror.

    Raises UserError naming a tensor that is missing, left over or of another shape than the mirror's.
    """
    found = state_dict(params)
    expected = mirror.state_dict()
    for name, tensor in expected.items():
        if name not in found:
            raise UserError(f"tensor {name} of shape {tuple(tensor.shape)} is missing: {HINT}")
        if found[name].shape != tensor.shape:
            raise UserError(
                f"tensor {name} should be of shape {tuple(tensor.shape)}, not {tuple(found[name].shape)}: {HINT}"
            )
    if left_over := sorted(found.keys() - expected.keys()):
        raise UserError(f"tensor {left_over[0]} of shape {tuple(found[left_over[0]].shape)} has no place: {HINT}")
    mirror.load_state_dict(found, assign=True)


def state_dict(params: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Flax parameters under the mirror's names: block_3/ffn/up/kernel is blocks.3.ffn.up.weight.

    A flax kernel, of a dense layer or a convolution, is [..., in, out], a PyTorch weight [out, in, ...].
    """
    arrays = jax.tree.map(np.asarray, dict(params))  # views, so that blocks are cut out of a stack without copies
    tensors = {}
    for (*modules, leaf), array in flatten_dict(unstack_blocks(arrays) if "blocks" in arrays else arrays).items():
        path = re.sub(r"^block_(\d+)", r"blocks.\1", ".".join(modules))
        values = np.moveaxis(array, (-1, -2), (0, 1)) if leaf == "kernel" else array
        tensors[f"{path}.{LEAVES.get(leaf, leaf)}"] = torch.tensor(values)
    return tensors
