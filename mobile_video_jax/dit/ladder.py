"""SnapGen++'s ladder (arXiv 2601.08303, section 3): from a plain transformer to three stages of sparse attention."""

import dataclasses

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig

BASE = "base"
RUNGS = (BASE, "stages", "assa", "enhanced")
DEPTH = 28  # blocks of the published networks
STAGES, ENHANCED_STAGES = (6, 8), (8, 10)  # of them before and behind the middle
FEWEST = 4  # blocks that all rungs can be made of


def rung(base: DitConfig, name: str) -> DitConfig:
    """The network of a rung of RUNGS, as deep as `base`, which has one kind of block; each has what those before have.

    stages: the middle half of the blocks on half of the rows and columns. assa: sparse attention outside of it.
    enhanced: half as many heads of keys as of queries, an FFN a third wider outside a shorter middle, whose first half
    skips to its second. Raises UserError for too few blocks, and for blocks or a layout of their own.
    """
    if base.depth < FEWEST or base.blocks or base.layout:
        raise UserError(f"a ladder starts from at least {FEWEST} equal blocks without a layout: set model.depth")
    if name == BASE:
        return base
    down, up = _outer(base.depth, ENHANCED_STAGES if name == "enhanced" else STAGES)
    middle, kind = base.depth - down - up, "full" if name == "stages" else "assa"
    layout = (*((kind, 1),) * down, *(("full", 2),) * middle, *((kind, 1),) * up)
    if name != "enhanced":
        return dataclasses.replace(base, layout=layout)
    narrow = (base.heads, base.heads, base.ffn)
    wide = (base.heads, base.heads, base.ffn * 4 // 3)
    return dataclasses.replace(
        base,
        layout=layout,
        kv_heads=max(1, base.heads // 2),
        blocks=(*(wide,) * down, *(narrow,) * middle, *(wide,) * up),
        skips=tuple((down + i, down + middle - 1 - i) for i in range(middle // 2)),
    )


def _outer(depth: int, published: tuple[int, int]) -> tuple[int, int]:
    """Blocks before and behind the middle, in the published proportion."""
    down, up = (max(1, round(blocks * depth / DEPTH)) for blocks in published)
    return down, up
