"""Conversion between the two layouts of a transformer's parameters: a tree per block, or blocks stacked for scan."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mobile_video_jax.dit.groups import Group

Params = dict[str, Any]


def stack_blocks(params: Params, groups: Sequence[Group] = ()) -> Params:
    """Stacks the trees block_0, block_1, ... of each group along a new first axis, at NAME/block, as nn.scan requires.

    Without groups all blocks are one, `blocks`.
    """
    depth = sum(name.startswith("block_") for name in params)
    ranges = {group.name: range(group.first, group.stop) for group in groups} or {"blocks": range(depth)}
    rest = {name: value for name, value in params.items() if not name.startswith("block_")}
    stacked = {name: [params[f"block_{i}"] for i in blocks] for name, blocks in ranges.items()}
    return {
        **rest,
        **{
            name: {"block": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)}
            for name, blocks in stacked.items()
        },
    }


def unstack_blocks(params: Params) -> Params:
    """Inverse of stack_blocks."""
    unstacked: Params = {}
    for name, value in params.items():
        if not is_group(name):
            unstacked[name] = value
            continue
        first, leaves = first_block(name), value["block"]
        for i in range(jax.tree.leaves(leaves)[0].shape[0]):
            unstacked[f"block_{first + i}"] = jax.tree.map(lambda leaf, i=i: leaf[i], leaves)
    return unstacked


def is_group(name: str) -> bool:
    """True for the name of scanned blocks."""
    return name.partition("_")[0] == "blocks"


def first_block(name: str) -> int:
    """The first block of scanned blocks, by their name."""
    return int(name.partition("_")[2] or 0)
