"""The middle blocks of a transformer, which some tokens pass by in training (SPRINT, arXiv 2510.21986): sizes alone."""

import dataclasses
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.nn.attention.config import FULL

DENSE = 2  # first blocks, and last ones, that see all tokens


def check_drop(config: DitConfig, setting: str = "token_drop") -> None:
    """Raises UserError for a network without a middle to pass by, and for blocks that need all tokens of a grid."""
    shapes = config.block_shapes
    middle = range(DENSE, len(shapes) - DENSE)
    if not middle:
        raise UserError(f"{setting} needs more than {2 * DENSE} blocks: leave it out")
    if any(block in middle for skip in config.skips for block in skip):
        fusion = f"(({DENSE - 1},{middle.stop}),)"
        raise UserError(f"{setting} needs skips that pass by the middle, as model.skips={fusion}: leave it out")
    if config.causal or any((shapes[i].kind, shapes[i].resolution) != (FULL, 1) for i in middle):
        raise UserError(f"{setting} needs middle blocks of full attention to all tokens: leave it out")


def fused(config: DitConfig) -> DitConfig:
    """The config with SPRINT's fusion: what went past the middle joins the first of the last blocks."""
    return dataclasses.replace(config, skips=((DENSE - 1, len(config.block_shapes) - DENSE),))


def without_middle(config: DitConfig) -> DitConfig:
    """The config of the first and the last blocks alone. Raises UserError as check_drop does."""
    check_drop(config, "path_drop")
    ends = [*range(DENSE), *range(len(config.block_shapes) - DENSE, len(config.block_shapes))]
    of_ends: dict[str, Any] = {
        name: tuple(values[i] for i in ends)
        for name in ("blocks", "layout", "rope_heads")
        if (values := getattr(config, name))
    }
    skips = tuple((ends.index(source), ends.index(target)) for source, target in config.skips)
    return dataclasses.replace(config, depth=len(ends), skips=skips, **of_ends)
