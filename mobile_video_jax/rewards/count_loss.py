"""CountDiffusion's loss on cross-attention, and its masks at the size of latents (arXiv 2505.04347).

A_obj is the softmax over positions of the attention to the object's word. In the mask of what is too much it is to
fall, in the place of what is missing it is to rise.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy import ndimage

from mobile_video_jax.core.arrays import Frames

KEPT = 0.8  # share of the mask's positions, the highest of the map, that the loss is a mean over
WIDE = 1.3  # side of the square for a missing object, in square roots of the smallest object's area
BLUR = 0.5  # standard deviation of the 3 x 3 Gaussian that maps are blurred with, in positions
COLOURED = 48  # chroma, of 255, above which a pixel is of an object
SPECK = 0.25  # tracks smaller than this share of the largest one are no objects

Maps = Float[Array, "b lt lh lw"]


class Edit(NamedTuple):
    """Where clips are edited, and how: sign 1 takes an object away, -2 adds one, 0 leaves a clip as it is."""

    mask: Bool[np.ndarray, "b lt lh lw"]
    inside: Bool[np.ndarray, "b lt lh lw"]  # the mask and what is next to it; elsewhere a clip stays as it was
    sign: Float[np.ndarray, "b"]

    @classmethod
    def of(cls, edits: Sequence[tuple[np.ndarray, float]]) -> "Edit":
        """The edit of a batch, from those of its clips (see edit_of)."""
        masks = np.stack([mask for mask, _ in edits])
        return cls(masks, _dilated(masks), np.array([sign for _, sign in edits], np.float32))


def object_maps(logits: Float[Array, "b n s"], word: Int[Array, "b"], grid: tuple[int, int, int]) -> Maps:
    """A_obj of each clip's word: softmax over the rows and columns of each latent frame, blurred."""
    of_word = jnp.take_along_axis(logits, word[:, None, None], axis=2)[..., 0]
    maps = jax.nn.softmax(of_word.reshape(-1, grid[0], grid[1] * grid[2]), axis=-1).reshape(-1, *grid)
    weights = np.exp(-0.5 * (np.arange(-1, 2) / BLUR) ** 2)
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    frames = jnp.pad(maps.reshape(-1, 1, *grid[1:]), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    blurred = jax.lax.conv_general_dilated(frames, jnp.asarray(kernel[None, None], maps.dtype), (1, 1), "VALID")
    return blurred.reshape(maps.shape)


def count_loss(maps: Maps, mask: Bool[Any, "b lt lh lw"], sign: Float[Any, "b"]) -> Float[Array, "b"]:
    """sign times the mean of the highest KEPT of the map's values in each clip's mask; 0 for an empty one."""
    values = jnp.where(mask, maps, 0.0).reshape(maps.shape[0], -1)
    size = jnp.ceil(KEPT * jnp.sum(mask.reshape(values.shape), axis=1, keepdims=True))
    highest = jnp.arange(values.shape[1]) < size
    total = jnp.sum(-jnp.sort(-values, axis=1) * highest, axis=1)
    mean: jax.Array = total / jnp.maximum(size[:, 0], 1)
    return jnp.asarray(sign) * mean


def edit_of(frames: Frames, counted: int, wanted: int, grid: tuple[int, int, int]) -> tuple[np.ndarray, float]:
    """The mask [lt lh lw] and the sign of one clip whose counter reads `counted` objects where `wanted` were asked.

    Objects are coloured regions that stay connected from frame to frame, so that a mask follows their motion.
    """
    tracks = _tracks(frames)
    missing = wanted - counted
    if missing == 0 or not tracks:
        return np.zeros(grid, bool), 0.0
    if missing < 0:
        surplus = sorted(tracks, key=np.sum)[:-missing]
        return _at_latents(np.any(surplus, axis=0), grid), 1.0
    added = np.zeros_like(tracks[0])
    for _ in range(missing):
        added |= _square(tracks, np.any(tracks, axis=0) | added)
    return _at_latents(added, grid), -2.0


def _dilated(mask: Bool[np.ndarray, "b lt lh lw"]) -> Bool[np.ndarray, "b lt lh lw"]:
    """The mask and the eight neighbours of each position in its frame."""
    wider: np.ndarray = ndimage.binary_dilation(mask, np.ones((1, 1, 3, 3), bool))
    return wider


def _tracks(frames: Frames) -> list[np.ndarray]:
    chroma = frames.max(axis=-1).astype(int) - frames.min(axis=-1)
    labels, count = ndimage.label(chroma > COLOURED, np.ones((3, 3, 3)))
    tracks = [labels == i for i in range(1, count + 1)]
    largest = max((track.sum() for track in tracks), default=0)
    return [track for track in tracks if track.sum() > SPECK * largest]


def _square(tracks: list[np.ndarray], taken: np.ndarray) -> np.ndarray:
    """A square that moves as the objects do, where it overlaps least with what is taken and with the outside."""
    smallest = min(tracks, key=np.sum)
    areas = smallest.sum(axis=(1, 2))
    side = max(min(round(WIDE * float(np.sqrt(areas[areas > 0].min()))), min(taken.shape[1:]) // 2), 1)
    shifts = _shifts(tracks, len(taken))
    frames = [
        ndimage.shift(taken[t].astype(float), (-down, -right), order=0, cval=1)
        for t, (down, right) in enumerate(shifts)
    ]
    cost = ndimage.uniform_filter(np.sum(frames, axis=0), side, mode="nearest")
    half = side // 2
    inner = cost[half : cost.shape[0] - half or None, half : cost.shape[1] - half or None]
    row, column = (int(i) for i in np.unravel_index(int(inner.argmin()), inner.shape))
    square = np.zeros(taken.shape, bool)
    for t, (down, right) in enumerate(shifts):
        rows = slice(max(row + down, 0), max(row + down, 0) + side)
        square[t, rows, max(column + right, 0) : max(column + right, 0) + side] = True
    return square


def _shifts(tracks: list[np.ndarray], frames: int) -> list[tuple[int, int]]:
    """How far the objects have moved since the first frame, in rows and columns."""
    whole = np.any(tracks, axis=0)
    centres = [ndimage.center_of_mass(whole[t]) if whole[t].any() else None for t in range(frames)]
    first = next(centre for centre in centres if centre)
    return [(round(c[0] - first[0]), round(c[1] - first[1])) if c else (0, 0) for c in centres]


def _at_latents(mask: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
    """The latent positions whose pixels the mask touches; the first latent frame is the first frame alone."""
    frames, stride = len(mask), max((len(mask) - 1) // max(grid[0] - 1, 1), 1)
    groups = [mask[:1], *(mask[start : start + stride] for start in range(1, frames, stride))]
    pooled = [group.any(axis=0).reshape(grid[1], mask.shape[1] // grid[1], grid[2], -1) for group in groups[: grid[0]]]
    touched: np.ndarray = np.stack([frame.mean(axis=(1, 3)) > 0.25 for frame in pooled])
    return touched
