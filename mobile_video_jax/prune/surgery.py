"""Slicing: the config and the parameters of the smaller transformer that masks leave."""

import dataclasses

import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.dit.stacking import Params, stack_blocks, unstack_blocks
from mobile_video_jax.prune.units import WIDTHS, head_modules, kept_blocks


def block_map(keep: Masks) -> tuple[int, ...]:
    """The teacher's block that each block of the student is, for features that are compared in pairs."""
    return tuple(kept_blocks(keep))


def pruned_config(config: DitConfig, keep: Masks) -> DitConfig:
    """The config of the masked model: depth, heads and ffn if they describe all blocks, else `blocks`.

    Heads with RoPE angles of their own keep them: `rope_heads` lists the original numbers of heads. Blocks that differ,
    also in these, are not scanned. Raises UserError where no block remains, or a block without heads or channels.
    """
    blocks = kept_blocks(keep)
    if not blocks:
        raise UserError("no block would be left: keep at least one")
    for source, shape in blocks.items():
        for kind in WIDTHS:
            if not getattr(shape, kind):
                raise UserError(f"block {source} would be left without {kind}: remove the whole block, or keep some")
    shapes = tuple(blocks.values())
    first, alike, rope_heads = shapes[0], len(set(shapes)) == 1, _rope_heads(config, keep)
    config = dataclasses.replace(
        config, rope_heads=rope_heads, scan=config.scan and alike and len(set(rope_heads)) <= 1
    )
    if alike and first.heads == first.cross_heads:
        return dataclasses.replace(config, depth=len(shapes), heads=first.heads, ffn=first.ffn, blocks=())
    return dataclasses.replace(config, blocks=tuple(shape.widths for shape in shapes))


def _rope_heads(config: DitConfig, keep: Masks) -> tuple[tuple[int, ...], ...]:
    """DitConfig.rope_heads of the masked model; () if every block has the first heads."""
    if not config.rope_scale:
        return ()
    numbers = config.block_rope_heads
    head_numbers = tuple(tuple(numbers[i][head] for head in np.flatnonzero(keep.heads[i])) for i in kept_blocks(keep))
    return head_numbers if any(heads != tuple(range(len(heads))) for heads in head_numbers) else ()


def slice_params(params: Params, config: DitConfig, keep: Masks) -> Params:
    """The parameters of pruned_config(config, keep), a network that computes what the masked one does.

    Removed are a head's columns of q, k and v and its rows of `out`, and a channel's column of `up` and row of `down`.
    Norms of queries and keys are shared by heads and stay; norms across heads lose the head's scales, and their mean is
    over the kept heads, as under masks. The width between blocks stays. The layout is that of the config: one tree a
    block, or all stacked for scan.
    """
    pruned = pruned_config(config, keep)
    unrolled = unstack_blocks(params) if config.scan else params
    rest = {name: value for name, value in unrolled.items() if not name.startswith("block_")}
    for i, source in enumerate(block_map(keep)):
        rest[f"block_{i}"] = _block(unrolled[f"block_{source}"], source, config, keep)
    return stack_blocks(rest) if pruned.scan else rest


def _block(block: Params, source: int, config: DitConfig, keep: Masks) -> Params:
    heads, cross_heads, channels = (np.flatnonzero(getattr(keep, kind)[source]) for kind in WIDTHS)
    ffn = block["ffn"]
    return {
        **block,
        "self_attention": _attention(block["self_attention"], heads, config),
        "cross_attention": _attention(block["cross_attention"], cross_heads, config),
        "ffn": {"up": _columns(ffn["up"], channels), "down": _rows(ffn["down"], channels)},
    }


def _attention(attention: Params, heads: np.ndarray, config: DitConfig) -> Params:
    channels = (heads[:, None] * config.head_dim + np.arange(config.head_dim)).ravel()
    sliced = {name: _columns(attention[name], channels) for name in head_modules(config)}
    return {**attention, **sliced, "out": _rows(attention["out"], channels)}


def _columns(module: Params, indices: np.ndarray) -> Params:
    return {name: values[..., indices] for name, values in module.items()}


def _rows(dense: Params, indices: np.ndarray) -> Params:
    return {**dense, "kernel": dense["kernel"][indices]}
