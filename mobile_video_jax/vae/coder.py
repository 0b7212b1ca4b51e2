"""Coding long and large clips in bounded memory: chunk by chunk in time, tile by tile in space."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Shaped

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.stream import STREAM
from mobile_video_jax.vae.ltx.model import LtxVae
from mobile_video_jax.vae.model import Vae
from mobile_video_jax.vae.pixels import to_signed

Chunk = Shaped[np.ndarray, "_ _ _ _ _"]  # [b t h w c]
Image = tuple[Shaped[np.ndarray, "b 1 _ _ _"], ...]  # vae.model.ImageFeatures on the host
Pair = tuple[int, ...]  # rows and columns


@dataclasses.dataclass(frozen=True)
class ClipCoder:
    """Encodes and decodes clips that come as chunks, with a state of fixed size.

    Chunk by chunk equals the whole clip; networks that are not causal in time take the clip as one chunk. With `tile`
    pixels a side, larger frames are cut into tiles that share `overlap` pixels or a little more, and are blended
    linearly there: close to the whole frame, not equal to it, since a tile's convolutions and attention end at its
    border. Raises UserError for a tile that does not fit the stride, and at a second chunk for such a network.
    """

    vae: Vae | LtxVae
    params: Any
    tile: int = 0
    overlap: int = 0

    def __post_init__(self) -> None:
        stride = self.vae.config.strides.space
        if self.tile % stride or self.overlap % stride or not 0 <= self.overlap <= self.tile // 2:
            raise UserError(
                f"tile {self.tile} and overlap {self.overlap}: use multiples of the spatial stride {stride}, "
                "and an overlap of at most half a tile"
            )

    def encode(self, chunks: Iterable[Chunk]) -> Iterator[np.ndarray]:
        """Means of unnormalised latents of uint8 chunks: the first of time * k + 1 frames, the others of time * k.

        Raises UserError for chunks of other lengths.
        """
        strides = self.vae.config.strides
        return self._coded(_encode, _checked(chunks, strides.time), strides.space)

    def decode(self, chunks: Iterable[Chunk], image: Image | None = None) -> Iterator[np.ndarray]:
        """Clips in about [-1, 1] of chunks of unnormalised latents; `image` as in Vae.decode."""
        return self._coded(_decode, chunks, 1, image or ())

    def _coded(
        self, step: Callable[..., Any], chunks: Iterable[Chunk], scale: int, image: Image = ()
    ) -> Iterator[np.ndarray]:
        """Each chunk's tiles coded and blended; `scale` is how many of its pixels a side of a latent place covers."""
        stride = self.vae.config.strides.space
        tile, overlap = self.tile // stride, self.overlap // stride
        states: dict[Pair, Any] = {}
        for chunk in chunks:
            grid = (chunk.shape[2] // scale, chunk.shape[3] // scale)
            sides = tuple(min(tile or size, size) for size in grid)
            blend = _Blend(grid)
            for place in itertools.product(*(tile_starts(size, tile, overlap) for size in grid)):
                part = chunk[_window(chunk, grid, place, sides)]
                near = tuple(level[_window(level, grid, place, sides)] for level in image)
                out, states[place] = step(self.vae, self.params, states.get(place, {}), part, near)
                blend.add(np.asarray(out), place, sides, overlap)
            yield blend.mean()


def _checked(chunks: Iterable[Chunk], time: int) -> Iterator[Chunk]:
    for i, chunk in enumerate(chunks):
        if (frames := chunk.shape[1] - (i == 0)) % time:
            raise UserError(f"chunk {i} of a clip has {chunk.shape[1]} frames: use {frames // time * time + (i == 0)}")
        yield chunk


@functools.partial(jax.jit, static_argnames="vae")
def _encode(vae: Vae | LtxVae, params: Any, state: Any, chunk: Any, _: Any) -> tuple[jax.Array, Any]:
    posterior, state = vae.apply({"params": params, **state}, to_signed(chunk), method="encode", mutable=[STREAM])
    return posterior.mean, state


@functools.partial(jax.jit, static_argnames="vae")
def _decode(vae: Vae | LtxVae, params: Any, state: Any, chunk: Any, image: Any) -> tuple[jax.Array, Any]:
    return vae.apply({"params": params, **state}, chunk, image or None, method="decode", mutable=[STREAM])


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Where equal tiles start that cover `size` places and share at least `overlap`; one tile where `tile` is 0."""
    if not 0 < tile < size:
        return [0]
    count = math.ceil((size - overlap) / (tile - overlap))
    return [round(i * (size - tile) / (count - 1)) for i in range(count)]


def _window(x: Any, grid: Pair, place: Pair, sides: Pair) -> tuple[Any, ...]:
    """The part of x, whose frames show the whole grid, that shows a tile."""
    scale = x.shape[2] // grid[0]
    rows, columns = (slice(start * scale, (start + side) * scale) for start, side in zip(place, sides, strict=True))
    return (slice(None), slice(None), rows, columns)


class _Blend:
    """The weighted mean of overlapping tiles: weights fall linearly to the borders that a tile shares with others."""

    def __init__(self, grid: Pair):
        self._grid = grid
        self._total: np.ndarray | None = None

    def add(self, part: np.ndarray, place: Pair, sides: Pair, overlap: int) -> None:
        scale = part.shape[2] // sides[0]
        if self._total is None:
            rows, columns = (size * scale for size in self._grid)
            self._total = np.zeros((*part.shape[:2], rows, columns, part.shape[4]), np.float32)
            self._weight = np.zeros((rows, columns, 1), np.float32)
        window = _window(self._total, self._grid, place, sides)
        rows, columns = (
            _ramp(start, side, size, overlap, scale) for start, side, size in zip(place, sides, self._grid, strict=True)
        )
        weight = (rows[:, None] * columns[None, :])[..., None]
        self._total[window] += weight * part
        self._weight[window[2:]] += weight

    def mean(self) -> np.ndarray:
        return self._total / self._weight


def _ramp(start: int, side: int, size: int, overlap: int, scale: int) -> Float[np.ndarray, "n"]:
    """One axis of a tile's weights: rising over the overlap from a border inside the frame, 1 elsewhere."""
    distance = (np.arange(side * scale, dtype=np.float32) + 0.5) / max(overlap * scale, 1)
    rising = distance if start > 0 else np.ones_like(distance)
    falling = distance[::-1] if start + side < size else np.ones_like(distance)
    return np.minimum(np.minimum(rising, falling), 1.0)
