"""Low-rank adapters of the transformer's linear layers (LoRA, arXiv 2106.09685)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from mobile_video_jax.core.arrays import Rng
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.dit.config import LoraConfig
from mobile_video_jax.dit.stacking import is_group
from mobile_video_jax.nn.dense import FACTORS, Initializer, zeros
from mobile_video_jax.nn.module import partitioned

Params = dict[str, Any]


def init_adapter(config: LoraConfig, rng: Rng, params: Params) -> Params:
    """Initial factors {"a": A [in, rank], "b": B [rank, out]} of each target layer, at its kernel's path.

    A is normal and B zero, so that a fresh adapter changes nothing. Factors of scanned layers have a leading axis, like
    their kernels. A has the logical axis name of the kernel's inputs, B that of its outputs. Raises UserError for a
    target that is not a linear layer.
    """
    layers = {path[:-1]: kernel for path, kernel in flatten_dict(params).items() if path[-1] == "kernel"}
    _check_targets(config.targets, {layer_name(path) for path in layers})
    factors = {
        path: _factors(named_key(rng, "/".join(path)), kernel, config.rank)
        for path, kernel in layers.items()
        if layer_name(path) in config.targets
    }
    adapter: Params = unflatten_dict(factors)
    return adapter


def layer_name(path: tuple[str, ...]) -> str:
    """A layer's path within its block, or within the network for layers outside blocks."""
    return "/".join(name for name in path if not name.startswith("block"))


def merged(params: Params, adapter: Params, scale: float) -> Params:
    """Parameters with W + scale A B for every kernel W that the adapter has factors of; others are unchanged."""
    leaves, factors = flatten_dict(params), flatten_dict(adapter)
    for path in dict.fromkeys(path[:-1] for path in factors):
        kernel = leaves[*path, "kernel"]
        update = scale * (factors[*path, "a"] @ factors[*path, "b"])
        leaves[*path, "kernel"] = (kernel + update).astype(kernel.dtype)
    params = unflatten_dict(leaves)
    return params


def switched_on(params: Params, adapter: Params, scale: float) -> Params:
    """Parameters whose linear layers also hold an adapter's factors, the scale in B: x W + b + scale (x A) B.

    As `merged`, without a second kernel: the same arrays serve the network without the adapter. Raises UserError for
    factors of a convolution.
    """
    leaves = flatten_dict(params)
    for path in dict.fromkeys(path[:-1] for path in flatten_dict(adapter)):
        if leaves[*path, "kernel"].ndim != 2 + any(map(is_group, path)):
            raise UserError(
                f"{layer_name(path)} is a convolution, whose adapter cannot be switched: leave it out of lora.targets"
            )
    for path, factor in flatten_dict(adapter).items():
        a, b = FACTORS
        leaves[*path[:-1], a if path[-1] == "a" else b] = factor if path[-1] == "a" else scale * factor
    tree: Params = unflatten_dict(leaves)
    return tree


def _check_targets(targets: tuple[str, ...], names: set[str]) -> None:
    if not targets or set(targets) - names:
        unknown = ", ".join(sorted(set(targets) - names))
        raise UserError(f"lora.targets: '{unknown}' names no linear layer; choose from {', '.join(sorted(names))}")


def _factors(rng: Rng, kernel: Any, rank: int) -> Params:
    *layers, inputs, outputs = jax.tree.leaves(kernel)[0].shape
    names = kernel.names if isinstance(kernel, nn.LogicallyPartitioned) else (None,) * (len(layers) + 2)
    # x A is as large as x, whose values have a variance of about 1.
    normal: Initializer = jax.nn.initializers.normal(inputs**-0.5)
    return {
        "a": partitioned(normal, (*names[:-1], None))(rng, (*layers, inputs, rank), jnp.float32),
        "b": partitioned(zeros, (*names[:-2], None, names[-1]))(rng, (*layers, rank, outputs), jnp.float32),
    }
