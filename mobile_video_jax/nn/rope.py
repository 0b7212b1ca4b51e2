"""Rotary position embedding over time, rows and columns."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mobile_video_jax.core.errors import UserError

RopeTable = tuple[Float[Array, "n half"], Float[Array, "n half"]]


def rope_table(grid: tuple[int, int, int], head_dim: int, theta: float) -> RopeTable:
    """Cosines and sines [n, head_dim / 2] of the rotation angles of each place in a (t, h, w) grid, row-major.

    Pair j of an axis turns by position * theta^(-j / pairs) (arXiv 2104.09864). Rows and columns get a third of
    the pairs each and time the rest. The table is a constant of the graph, so a phone never computes a sine.
    """
    pairs = head_dim // 2
    if head_dim % 2 or pairs < 3:
        raise UserError(f"head dimension {head_dim} is too small for 3-D RoPE: use an even number of 6 or more")
    counts = (pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)
    places = np.stack(np.meshgrid(*(np.arange(size) for size in grid), indexing="ij"), axis=-1).reshape(-1, 3)
    angles = [
        places[:, axis, None] * theta ** (-np.arange(count) / count)[None, :] for axis, count in enumerate(counts)
    ]
    angle = np.concatenate(angles, axis=1)
    return jnp.asarray(np.cos(angle), jnp.float32), jnp.asarray(np.sin(angle), jnp.float32)


def apply_rope(x: Float[Array, "b n h d"], table: RopeTable) -> Float[Array, "b n h d"]:
    """Rotates the pairs (x[j], x[j + d/2]) of each head by its token's angles."""
    cos, sin = (part.astype(x.dtype)[None, :, None, :] for part in table)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
