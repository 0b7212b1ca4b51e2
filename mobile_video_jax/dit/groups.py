"""Groups of equal consecutive blocks, which are scanned together, and stages: groups of one resolution."""

import dataclasses
import itertools
from typing import NamedTuple

from mobile_video_jax.dit.config import BlockShape, DitConfig


class Group(NamedTuple):
    """Equal blocks from `first` to before `stop`; `name` is that of their scanned parameters."""

    shape: BlockShape
    rope_heads: tuple[int, ...]
    first: int
    stop: int
    name: str

    @property
    def length(self) -> int:
        """The number of blocks."""
        return self.stop - self.first


def groups(config: DitConfig) -> tuple[Group, ...]:
    """The groups of a transformer in order: `blocks` where all are equal, else named after their first blocks."""
    shapes, rope_heads = config.block_shapes, config.block_rope_heads
    runs = [list(run) for _, run in itertools.groupby(range(len(shapes)), lambda i: (shapes[i], rope_heads[i]))]
    return tuple(
        Group(shapes[i], rope_heads[i], i, run[-1] + 1, "blocks" if len(runs) == 1 else f"blocks_{i}")
        for run in runs
        for i in run[:1]
    )


def stages(config: DitConfig) -> tuple[tuple[Group, ...], ...]:
    """The groups of each stage; all blocks of the whole resolution between two lower ones are one."""
    runs = itertools.groupby(groups(config), lambda group: group.shape.stage)
    return tuple(tuple(run) for _, run in runs)


def first_groups(config: DitConfig, count: int) -> DitConfig:
    """The config of the first `count` blocks."""
    return dataclasses.replace(
        config,
        depth=count,
        blocks=config.blocks[:count],
        layout=config.layout[:count],
        new_stages=tuple(i for i in config.new_stages if i < count),
        skips=tuple(skip for skip in config.skips if max(skip) < count),
        rope_heads=config.rope_heads[:count],
    )
