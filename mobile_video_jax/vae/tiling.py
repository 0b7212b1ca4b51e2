"""Overlapping tiles of a frame, and the weighted mean that blends them."""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

Grid = tuple[int, int]  # rows and columns of latent positions
Chunk = Shaped[np.ndarray, "b t h w c"]


class Tile(NamedTuple):
    """A rectangle of latent positions: its first row and column, and its numbers of rows and columns."""

    start: Grid
    size: Grid

    def window(self, x: Any, grid: Grid) -> tuple[slice, slice, slice, slice]:
        """Index of the tile in x [b t h w ...], whose frames show the whole grid at any resolution."""
        scale = x.shape[2] // grid[0]
        rows, columns = (
            slice(start * scale, (start + size) * scale) for start, size in zip(self.start, self.size, strict=True)
        )
        return slice(None), slice(None), rows, columns


def tiles_of(grid: Grid, side: int, overlap: int) -> list[Tile]:
    """Equal tiles of `side` positions that cover the grid and overlap by at least `overlap`; one tile for side 0."""
    size = (min(side or grid[0], grid[0]), min(side or grid[1], grid[1]))
    starts = (tile_starts(length, side, overlap) for length in grid)
    return [Tile((row, column), size) for row, column in itertools.product(*starts)]


def tile_starts(length: int, side: int, overlap: int) -> list[int]:
    """Starts along one axis of equal tiles that cover `length` positions; one tile where `side` is 0 or enough."""
    if not 0 < side < length:
        return [0]
    count = math.ceil((length - overlap) / (side - overlap))
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


class Blend:
    """Weighted mean of overlapping tiles: weights fall linearly towards borders that a tile shares with others."""

    def __init__(self, grid: Grid):
        self._grid = grid
        self._total = np.zeros(0, np.float32)
        self._weight = np.zeros(0, np.float32)

    def add(self, pixels: Chunk, tile: Tile, overlap: int) -> None:
        """Adds one tile's pixels [b t h w c], a multiple of its size; `overlap` is in latent positions."""
        scale = pixels.shape[2] // tile.size[0]
        if not self._total.size:
            height, width = (length * scale for length in self._grid)
            self._total = np.zeros((*pixels.shape[:2], height, width, pixels.shape[4]), np.float32)
            self._weight = np.zeros((height, width, 1), np.float32)
        window = tile.window(self._total, self._grid)
        rows, columns = (
            _ramp(start, size, length, overlap, scale)
            for start, size, length in zip(tile.start, tile.size, self._grid, strict=True)
        )
        weight = (rows[:, None] * columns[None, :])[..., None]
        self._total[window] += weight * pixels
        self._weight[window[2:]] += weight

    def mean(self) -> Chunk:
        """The blended frames [b t h w c]."""
        return self._total / self._weight


def _ramp(start: int, size: int, length: int, overlap: int, scale: int) -> Float[np.ndarray, "n"]:
    """A tile's weights along one axis: rising over the overlap from borders inside the frame, 1 elsewhere."""
    distance = (np.arange(size * scale, dtype=np.float32) + 0.5) / max(overlap * scale, 1)
    rising = distance if start > 0 else np.ones_like(distance)
    falling = distance[::-1] if start + size < length else np.ones_like(distance)
    weights: np.ndarray = np.minimum(np.minimum(rising, falling), 1.0)
    return weights
