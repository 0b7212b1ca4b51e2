"""Embeddings of the diffusion time, and of positions in time, rows and columns (rotary)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mobile_video_jax.core.arrays import Times
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.config import MAX_POSITION

# Cosines and sines of rotation angles: one table for all heads, or one per head.
RopeTable = tuple[Float[Array, "n *heads half"], Float[Array, "n *heads half"]]
SelectedRope = tuple[Float[Array, "n *selected half"], Float[Array, "n *selected half"]]


def time_features(t: Times, width: int, *, max_period: float = 10_000.0) -> Float[Array, "b f"]:
    """Cosines and sines of 1000 t at `width` / 2 geometrically spaced frequencies (arXiv 2006.11239).

    Times are in [0, 1] here; the factor 1000 is the number of steps that the frequencies were designed for.
    """
    half = width // 2
    frequencies = max_period ** (-jnp.arange(half) / half)
    angles = 1000.0 * t.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def rope_table(
    grid: tuple[int, int, int], head_dim: int, theta: float, *, first: Int[Array, ""] | int = 0
) -> RopeTable:
    """Cosines and sines [n, head_dim / 2] of the rotation angles of each position in a (t, h, w) grid, row-major.

    `first` is the position of the first frame.

    Pair j of an axis turns by position * theta^(-j / pairs) (arXiv 2104.09864). Rows and columns get a third of
    the pairs each and time the rest. The table is a constant of the graph, so a phone never computes a sine.
    Raises UserError for a head dimension that is odd or below 6.
    """
    pairs = head_dim // 2
    if head_dim % 2 or pairs < 3:
        raise UserError(f"head dimension {head_dim} is too small for 3-D RoPE: use an even number of 6 or more")
    counts = (pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)
    positions = _positions(grid)
    angles = [
        positions[:, axis, None] * theta ** (-np.arange(count) / count)[None, :] for axis, count in enumerate(counts)
    ]
    table = np.concatenate(angles, axis=1)
    if isinstance(first, int):
        return _cos_sin(table + first * _turn_of_a_frame(counts, theta))
    turned = jnp.asarray(table, jnp.float32) + first * jnp.asarray(_turn_of_a_frame(counts, theta), jnp.float32)
    return jnp.cos(turned), jnp.sin(turned)


def _turn_of_a_frame(counts: tuple[int, int, int], theta: float) -> Float[np.ndarray, "half"]:
    return np.concatenate([theta ** (-np.arange(counts[0]) / counts[0]), np.zeros(counts[1] + counts[2])])


def fraction_rope_table(
    grid: tuple[int, int, int],
    scale: Sequence[float],
    heads: int,
    head_dim: int,
    theta: float,
    *,
    offset: float = 0.0,
) -> RopeTable:
    """Cosines and sines [n, heads, head_dim / 2] of LTX-Video's angles (arXiv 2501.00103), positions row-major.

    Pairs are counted through all heads. Of d = heads * head_dim channels the first d mod 6 are not turned; the next
    3 * (d // 6) pairs turn by theta^e * pi/2 * (2 p - 1), with d // 6 exponents e from 0 to 1 and for each of them the
    three coordinates p of a position, as fractions of 20 seconds and of 2048 pixels. `scale` is a grid step in seconds,
    pixel rows and pixel columns; frames but the first are `offset` steps earlier: (stride - 1) / stride where the first
    latent frame is one frame (LTX-Video from 0.9.5 on). Computed in float32, as in the original: the largest angles,
    about 15,000 radians, are sensitive to rounding. Raises UserError for an odd head dimension.
    """
    if head_dim % 2:
        raise UserError(f"head dimension {head_dim} is odd: RoPE turns pairs, use an even number")
    steps, largest = np.array(scale, np.float32), np.array(MAX_POSITION, np.float32)
    positions = np.maximum(_positions(grid).astype(np.float32) - np.array([offset, 0, 0], np.float32), 0)
    fractions = positions * steps / largest
    exponents = np.linspace(0, 1, heads * head_dim // 6, dtype=np.float32)
    frequencies = np.float32(theta) ** exponents * np.float32(np.pi) / 2
    angles = (frequencies[None, :, None] * (fractions * 2 - 1)[:, None, :]).reshape(len(fractions), -1)
    unturned = heads * head_dim % 6 // 2
    return _cos_sin(np.pad(angles, [(0, 0), (unturned, 0)]).reshape(len(fractions), heads, -1))


def select_heads(table: RopeTable, heads: Sequence[int]) -> SelectedRope:
    """The table of these heads; a table that all heads share is returned as it is."""
    cos, sin = table
    if cos.ndim == 2 or list(heads) == list(range(cos.shape[1])):
        return table
    return cos[:, np.array(heads)], sin[:, np.array(heads)]


@jax.named_scope("rope")  # cost.phone.trace knows the scope
def apply_rope(x: Float[Array, "b n h d"], table: RopeTable) -> Float[Array, "b n h d"]:
    """Rotates the pairs (x[j], x[j + d/2]) of each head by its token's angles."""
    cos, sin = (part.astype(x.dtype).reshape(1, x.shape[1], -1, x.shape[3] // 2) for part in table)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _positions(grid: tuple[int, int, int]) -> Int[np.ndarray, "n 3"]:
    return np.stack(np.meshgrid(*(np.arange(size) for size in grid), indexing="ij"), axis=-1).reshape(-1, 3)


def _cos_sin(angles: Float[np.ndarray, "n *heads half"]) -> RopeTable:
    return jnp.asarray(np.cos(angles), jnp.float32), jnp.asarray(np.sin(angles), jnp.float32)
