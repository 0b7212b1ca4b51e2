"""The best linear code of clips, in closed form: the floor that a trained VAE of the same latents must pass."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from mobile_video_jax.core.clip import Compression
from mobile_video_jax.core.errors import UserError

Video = UInt8[np.ndarray, "t h w 3"]
Blocks = Float32[np.ndarray, "n p"]

# Blocks that a code is fitted to; of large ones fewer, so that the matrix whose eigenvectors are found has at most 3000
# rows, which takes seconds.
MOST_BLOCKS, LARGE = 20_000, 3_000


@dataclasses.dataclass(frozen=True)
class Components:
    """Principal components of blocks of p values: their mean [p] and an orthonormal basis [c, p]."""

    mean: Float32[np.ndarray, "p"]
    basis: Float32[np.ndarray, "c p"]

    @classmethod
    def fit(cls, blocks: Blocks, count: int) -> "Components":
        """The first `count` components, or all p. Raises UserError where there are no more blocks than components."""
        count = min(count, blocks.shape[1])
        if len(blocks) <= count:
            raise UserError(f"{len(blocks)} blocks of pixels are too few for {count} components: give more clips")
        mean = blocks.mean(axis=0)
        centred = blocks - mean
        if len(centred) < centred.shape[1]:  # the eigenvectors of X X^T give those of X^T X
            rows = np.linalg.eigh(centred @ centred.T)[1][:, -count:].T @ centred
            basis = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        else:
            basis = np.linalg.eigh(centred.T @ centred)[1][:, -count:].T
        return cls(mean, basis.astype(np.float32))

    def project(self, blocks: Blocks) -> Blocks:
        """The blocks after coding and decoding."""
        projected: np.ndarray = (blocks - self.mean) @ self.basis.T @ self.basis + self.mean
        return projected


@dataclasses.dataclass(frozen=True)
class LinearCode:
    """Principal components of the pixels behind one latent position, those of a clip's first frame apart.

    Its latents have the shape of a VAE's of the same compression: a position of `channels` values for each block of
    time x space x space pixels, and of 1 x space x space pixels in the first frame. Fitted on training clips and
    applied to others, it has the least mean square error of all linear codes of that shape.
    """

    compression: Compression
    first: Components
    later: Components | None  # None for clips of one frame

    @classmethod
    def fit(cls, clips: Iterable[Video], compression: Compression) -> "LinearCode":
        """Fits the code to clips, as many as the limits above admit. Raises UserError where they are too few."""
        first, later = _Sample(), _Sample()
        for clip in clips:
            first.add(_blocks(clip[:1], 1, compression.space))
            if len(clip) > 1:
                later.add(_blocks(clip[1:], compression.time, compression.space))
            if first.full and (later.full or len(clip) == 1):
                break
        return cls(
            compression,
            Components.fit(first.blocks(), compression.channels),
            Components.fit(later.blocks(), compression.channels) if later.parts else None,
        )

    def reconstruct(self, clip: Video) -> Video:
        """Codes and decodes a clip."""
        time, space = self.compression.time, self.compression.space
        parts = [_frames(self.first.project(_blocks(clip[:1], 1, space)), clip[:1].shape, 1, space)]
        if self.later is not None:
            blocks = self.later.project(_blocks(clip[1:], time, space))
            parts.append(_frames(blocks, clip[1:].shape, time, space))
        video: np.ndarray = np.concatenate(parts).round().clip(0, 255).astype(np.uint8)
        return video


@dataclasses.dataclass
class _Sample:
    """Blocks up to the limits."""

    parts: list[Blocks] = dataclasses.field(default_factory=list)

    @property
    def full(self) -> bool:
        return bool(self.parts) and sum(map(len, self.parts)) >= self._limit

    @property
    def _limit(self) -> int:
        return MOST_BLOCKS if self.parts[0].shape[1] <= LARGE else LARGE

    def add(self, blocks: Blocks) -> None:
        if not self.full:
            self.parts.append(blocks)

    def blocks(self) -> Blocks:
        joined: np.ndarray = np.concatenate(self.parts)[: self._limit]
        return joined


def _blocks(frames: Video, time: int, space: int) -> Blocks:
    """Frames as rows of time x space x space x 3 values, one for each latent position."""
    t, h, w, c = frames.shape
    x = frames.reshape(t // time, time, h // space, space, w // space, space, c)
    blocks: np.ndarray = x.transpose(0, 2, 4, 1, 3, 5, 6).reshape(-1, time * space * space * c).astype(np.float32)
    return blocks


def _frames(blocks: Blocks, shape: Sequence[int], time: int, space: int) -> Float32[np.ndarray, "t h w 3"]:
    """The inverse of `_blocks`."""
    t, h, w, c = shape
    x = blocks.reshape(t // time, h // space, w // space, time, space, space, c)
    frames: np.ndarray = x.transpose(0, 3, 1, 4, 2, 5, 6).reshape(t, h, w, c)
    return frames
