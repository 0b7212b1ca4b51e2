"""Stages of blocks at a lower resolution: averages of squares of tokens, and back beside a long skip.

down: y = mean(x) + W_down squares(x)     up: x + repeat(y' - y) + unsquare(W_up (y' - y)), for blocks that map y to y'

Both matrices start at zero. Blocks that change nothing leave x as it is, so that removing them removes the stage.
"""

from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Tokens
from mobile_video_jax.dit.block import Conditions
from mobile_video_jax.nn.attention.config import Grid
from mobile_video_jax.nn.attention.pooling import from_squares, pooled, pooled_mask, squares, strided_rope, upsampled
from mobile_video_jax.nn.dense import Dense, zeros


class LowResolution(NamedTuple):
    """The residual stream of a stage, and the conditions of its blocks."""

    x: Float[Array, "b low d"]
    conditions: Conditions


class Downsampling(nn.Module):
    """The stage of a grid of tokens whose rows and columns are divided by `size`."""

    grid: Grid
    size: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Tokens, conditions: Conditions) -> LowResolution:
        mask, width = conditions.token_mask, x.shape[-1]
        visible = x if mask is None else x * mask[..., None].astype(x.dtype)
        groups = squares(visible, self.grid, self.size)
        groups = groups.reshape(*groups.shape[:2], -1)
        learned = Dense(width, (None, "embed"), zeros, use_bias=False, dtype=self.dtype, name="squares")(groups)
        low = pooled(x, self.grid, self.size, mask) + learned
        return LowResolution(
            low,
            conditions._replace(
                rope=strided_rope(conditions.rope, self.grid, self.size),
                token_mask=pooled_mask(mask, self.grid, self.size),
                detail=x - upsampled(low, self.grid, self.size),
            ),
        )


class Upsampling(nn.Module):
    """What a change of the stage's tokens adds to each token beside its repetition."""

    grid: Grid
    size: int
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, change: Float[Array, "b low d"]) -> Tokens:
        layer = Dense(
            self.size**2 * self.width, ("embed", None), zeros, use_bias=False, dtype=self.dtype, name="squares"
        )
        groups = layer(change).reshape(*change.shape[:2], self.size**2, self.width)
        return from_squares(groups, self.grid, self.size)
