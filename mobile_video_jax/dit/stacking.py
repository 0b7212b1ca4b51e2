"""Conversion between the two layouts of a transformer's parameters: a tree per block, or blocks stacked for scan."""

from typing import Any

import jax
import jax.numpy as jnp

Params = dict[str, Any]


def stack_blocks(params: Params) -> Params:
    """Stacks the trees block_0, block_1, ... along a new first axis, at blocks/block, as nn.scan requires."""
    blocks = [params[f"block_{i}"] for i in range(sum(name.startswith("block_") for name in params))]
    rest = {name: value for name, value in params.items() if not name.startswith("block_")}
    return {**rest, "blocks": {"block": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)}}


def unstack_blocks(params: Params) -> Params:
    """Inverse of stack_blocks."""
    stacked = params["blocks"]["block"]
    rest = {name: value for name, value in params.items() if name != "blocks"}
    depth = jax.tree.leaves(stacked)[0].shape[0]
    return {**rest, **{f"block_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(depth)}}
