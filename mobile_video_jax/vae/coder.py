"""Encoding and decoding of long and large clips in bounded memory: chunk by chunk in time, tile by tile in space."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Shaped

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.stream import STREAM
from mobile_video_jax.vae.ltx.model import LtxVae
from mobile_video_jax.vae.model import Vae
from mobile_video_jax.vae.pixels import to_signed
from mobile_video_jax.vae.tiling import Blend, Grid, tiles_of
from mobile_video_jax.vae.wan.model import WanVae

Chunk = Shaped[np.ndarray, "_ _ _ _ _"]  # [b t h w c]
Network = Vae | LtxVae | WanVae
Image = tuple[Shaped[np.ndarray, "b 1 _ _ _"], ...]  # core.arrays.ImageFeatures on the host


@dataclasses.dataclass(frozen=True)
class ClipCoder:
    """Encodes and decodes clips that arrive as chunks, with a state of fixed size.

    Chunk by chunk equals the whole clip. Networks that are not causal in time take the whole clip as one chunk and
    raise UserError at a second one. Larger frames than `tile` are split into overlapping tiles, blended linearly: close
    to the whole frame, but not equal, as convolutions and attention of a tile end at its border. Raises UserError for a
    tile that does not fit the stride.
    """

    vae: Network
    params: Any
    tile: int = 0  # pixels a side; 0: whole frames
    overlap: int = 0  # least overlap of neighbouring tiles in pixels

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
        """Codes each chunk's tiles and blends them; `scale` is the input rows per latent row."""
        stride = self.vae.config.strides.space
        side, overlap = self.tile // stride, self.overlap // stride
        states: dict[Grid, Any] = {}  # of each tile, by its start
        for chunk in chunks:
            grid = (chunk.shape[2] // scale, chunk.shape[3] // scale)
            blend = Blend(grid)
            for tile in tiles_of(grid, side, overlap):
                inputs = chunk[tile.window(chunk, grid)]
                features = tuple(level[tile.window(level, grid)] for level in image)
                out, states[tile.start] = step(self.vae, self.params, states.get(tile.start, {}), inputs, features)
                blend.add(np.asarray(out), tile, overlap)
            yield blend.mean()


def _checked(chunks: Iterable[Chunk], time: int) -> Iterator[Chunk]:
    for i, chunk in enumerate(chunks):
        if (frames := chunk.shape[1] - (i == 0)) % time:
            raise UserError(f"chunk {i} of a clip has {chunk.shape[1]} frames: use {frames // time * time + (i == 0)}")
        yield chunk


@functools.partial(jax.jit, static_argnames="vae")
def _encode(vae: Network, params: Any, state: Any, chunk: Any, _: Any) -> tuple[jax.Array, Any]:
    posterior, state = vae.apply({"params": params, **state}, to_signed(chunk), method="encode", mutable=[STREAM])
    return posterior.mean, state


@functools.partial(jax.jit, static_argnames="vae")
def _decode(vae: Network, params: Any, state: Any, chunk: Any, image: Any) -> tuple[jax.Array, Any]:
    return vae.apply({"params": params, **state}, chunk, image or None, method="decode", mutable=[STREAM])
