"""Slicing: the config and the parameters of the smaller transformer that masks leave."""

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import BlockShape, DitConfig
from mobile_video_jax.dit.groups import groups, stages
from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.dit.stacking import Params, stack_blocks, unstack_blocks
from mobile_video_jax.prune.units import OF_HEADS, PER_HEAD, WIDTHS, head_modules, kept_blocks


def block_map(keep: Masks) -> tuple[int, ...]:
    """The teacher's block that each block of the student is, for features that are compared in pairs."""
    return tuple(int(i) for i in np.flatnonzero(keep.block))


def pruned_config(config: DitConfig, keep: Masks) -> DitConfig:
    """The config of the masked model: depth, heads and ffn if they describe all blocks, else `blocks`.

    Kept blocks have their kinds, resolutions and stages. Heads with RoPE angles of their own keep them: `rope_heads`
    lists the original numbers of heads. Blocks that differ, also in these, are not scanned where there is no layout.
    Raises UserError where no block remains, or a block without heads or channels.
    """
    blocks = kept_blocks(keep, config.block_shapes)
    if not blocks:
        raise UserError("no block would be left: keep at least one")
    for source, shape in blocks.items():
        for kind in WIDTHS:
            if not getattr(shape, kind):
                raise UserError(f"block {source} would be left without {kind}: remove the whole block, or keep some")
    shapes = tuple(blocks.values())
    first, alike, rope_heads = shapes[0], len({shape.widths for shape in shapes}) == 1, _rope_heads(config, keep)
    config = dataclasses.replace(
        config,
        layout=tuple(shape.place for shape in shapes) if config.layout else (),
        new_stages=_new_stages(shapes),
        rope_heads=rope_heads,
        scan=config.scan and (bool(config.layout) or (alike and len(set(rope_heads)) <= 1)),
    )
    if alike and first.heads == first.cross_heads:
        return dataclasses.replace(config, depth=len(shapes), heads=first.heads, ffn=first.ffn, blocks=())
    return dataclasses.replace(config, blocks=tuple(shape.widths for shape in shapes))


def _new_stages(shapes: Sequence[BlockShape]) -> tuple[int, ...]:
    """The blocks that begin a stage of lower resolution behind another one of the same resolution."""
    pairs = enumerate(itertools.pairwise(shapes), 1)
    return tuple(i for i, (x, y) in pairs if x.resolution == y.resolution > 1 and x.stage != y.stage)


def _rope_heads(config: DitConfig, keep: Masks) -> tuple[tuple[int, ...], ...]:
    """DitConfig.rope_heads of the masked model; () if every block has the first heads."""
    if not config.rope_scale:
        return ()
    numbers = config.block_rope_heads
    head_numbers = tuple(tuple(numbers[i][head] for head in np.flatnonzero(keep.heads[i])) for i in block_map(keep))
    return head_numbers if any(heads != tuple(range(len(heads))) for heads in head_numbers) else ()


def slice_params(params: Params, config: DitConfig, keep: Masks) -> Params:
    """The parameters of pruned_config(config, keep), a network that computes what the masked one does.

    Removed are a head's columns of q, k and v and its rows of `out`, what else a kind has for each head, and a
    channel's column of `up` and row of `down`; of a stage without blocks the layers between resolutions. Norms of
    queries and keys are shared by heads and stay; norms across heads lose the head's scales, and their mean is over the
    kept heads, as under masks. The width between blocks stays. Blocks are stacked for scan where the config says so.
    """
    pruned = pruned_config(config, keep)
    unrolled = unstack_blocks(params) if config.scan else params
    rest = {name: value for name, value in unrolled.items() if name.partition("_")[0] not in ("block", "down", "up")}
    for i, source in enumerate(block_map(keep)):
        rest[f"block_{i}"] = _block(unrolled[f"block_{source}"], source, config, keep)
    for source, first in _stage_map(config, keep).items():
        rest |= {f"{name}_{first}": unrolled[f"{name}_{source}"] for name in ("down", "up")}
    return stack_blocks(rest, groups(pruned)) if pruned.scan else rest


def _stage_map(config: DitConfig, keep: Masks) -> dict[int, int]:
    """The first block of each stage of lower resolution, and the first one of those that are kept of it."""
    firsts: dict[int, int] = {}
    for i, source in enumerate(block_map(keep)):
        firsts.setdefault(config.block_shapes[source].stage, i)
    lower = (stage[0] for stage in stages(config) if stage[0].shape.resolution > 1)
    return {group.first: firsts[group.shape.stage] for group in lower if group.shape.stage in firsts}


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
    sliced = {name: _columns(attention[name], channels) for name in head_modules(config) if name in attention}
    for name, axis in (*((name, 0) for name in PER_HEAD), *((name, -1) for name in OF_HEADS)):
        if name in attention:
            sliced[name] = jax.tree.map(lambda x, axis=axis: x.take(heads, axis), attention[name])
    return {**attention, **sliced, "out": _rows(attention["out"], channels)}


def _columns(module: Params, indices: np.ndarray) -> Params:
    return {name: values[..., indices] for name, values in module.items()}


def _rows(dense: Params, indices: np.ndarray) -> Params:
    return {**dense, "kernel": dense["kernel"][indices]}
