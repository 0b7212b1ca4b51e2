"""Rotary position embedding over time, rows and columns."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mobile_video_jax.core.errors import UserError

# For all heads alike, or for each its own.
RopeTable = tuple[Float[Array, "n *heads half"], Float[Array, "n *heads half"]]
OwnRope = tuple[Float[Array, "n *own half"], Float[Array, "n *own half"]]

# LTX-Video's positions are fractions of 20 seconds and of 2048 pixels.
LONGEST = (20.0, 2048.0, 2048.0)


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


def fraction_rope_table(
    grid: tuple[int, int, int], scale: Sequence[float], heads: int, head_dim: int, theta: float
) -> RopeTable:
    """Cosines and sines [n, heads, head_dim / 2] of LTX-Video's angles (arXiv 2501.00103), row-major places.

    Pairs are counted through all heads. Of d = heads * head_dim channels the first d mod 6 are not turned; the next
    3 * (d // 6) pairs turn by theta^e * pi/2 * (2 p - 1), with d // 6 exponents e from 0 to 1 and for each of them the
    three positions p of a place, fractions of 20 seconds and of 2048 pixels; `scale` is a grid step's seconds, pixel
    rows and pixel columns. Computed in float32, as there: the largest angles, of some 15,000 radians, feel rounding.
    """
    if head_dim % 2:
        raise UserError(f"head dimension {head_dim} is odd: RoPE turns pairs, use an even number")
    steps, longest = np.array(scale, np.float32), np.array(LONGEST, np.float32)
    places = np.stack(np.meshgrid(*(np.arange(size) for size in grid), indexing="ij"), axis=-1).reshape(-1, 3)
    exponents = np.linspace(0, 1, heads * head_dim // 6, dtype=np.float32)
    frequencies = np.float32(theta) ** exponents * np.float32(np.pi) / 2
    angle = frequencies[None, :, None] * (places.astype(np.float32) * steps / longest * 2 - 1)[:, None, :]
    still = heads * head_dim % 6 // 2
    angle = np.pad(angle.reshape(len(places), -1), [(0, 0), (still, 0)]).reshape(len(places), heads, -1)
    return jnp.asarray(np.cos(angle), jnp.float32), jnp.asarray(np.sin(angle), jnp.float32)


def select_heads(table: RopeTable, heads: Sequence[int]) -> OwnRope:
    """The part of a table that these heads turn by: all of it where it is one for all heads."""
    cos, sin = table
    if cos.ndim == 2 or list(heads) == list(range(cos.shape[1])):
        return table
    return cos[:, np.array(heads)], sin[:, np.array(heads)]


def apply_rope(x: Float[Array, "b n h d"], table: RopeTable) -> Float[Array, "b n h d"]:
    """Rotates the pairs (x[j], x[j + d/2]) of each head by its token's angles."""
    cos, sin = (part.astype(x.dtype).reshape(1, x.shape[1], -1, x.shape[3] // 2) for part in table)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
