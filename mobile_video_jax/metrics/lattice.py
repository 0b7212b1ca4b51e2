"""The flat-colour lattice test of a VAE: the grid of its stride that it prints on frames of one colour.

A decoder that upsamples unevenly leaves a pattern that repeats with its spatial stride, which flat colours lay bare.
"""

import dataclasses
import itertools
import math

import numpy as np
from jaxtyping import Float64, UInt8

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError

# Away from 0 and 255, where clipping would hide half of a ripple.
LEVELS = (32, 224)


@dataclasses.dataclass(frozen=True)
class Lattice:
    """The pattern of decoded flat clips beside their colour; amplitude and ripple are in grey levels (0 to 255)."""

    amplitude: float  # of the strongest sinusoid among the stride's harmonics
    period: float  # of that sinusoid in pixels, the shorter of its row and column periods; infinite if there is none
    ripple: float  # standard deviation within a frame and colour, averaged


def flat_clips(shape: ClipShape) -> UInt8[np.ndarray, "8 t h w 3"]:
    """Eight clips of one colour each: the corners of the RGB cube, moved in to the levels 32 and 224."""
    colours = np.array(list(itertools.product(LEVELS, repeat=3)), np.uint8)
    return np.tile(colours[:, None, None, None], (1, shape.frames, shape.height, shape.width, 1))


def lattice(decoded: Clips, stride: int) -> Lattice:
    """Measures clips [b t h w 3] reconstructed from flat ones by a VAE of this spatial stride (pixels a latent).

    The amplitude is the largest over clips, frames and colours of a sinusoid whose row and column frequencies are
    multiples of 1/stride. Edges stay out: a stride on each side, where one or more remain. Raises UserError for frames
    that the stride does not divide.
    """
    inner = _inner(decoded, stride)
    amplitudes = _amplitudes(_mean_tile(inner, stride)).max(axis=(0, 1, 4))
    row, column = np.unravel_index(amplitudes.argmax(), amplitudes.shape)
    frequency = np.abs(np.fft.fftfreq(stride))[[row, column]].max()
    ripple = float(np.mean([clip.std(axis=(1, 2)) for clip in inner]))
    # Row and column 0 are the strongest only where all are zero up to rounding.
    return Lattice(float(amplitudes[row, column]), float(1 / frequency) if frequency else math.inf, ripple)


def _inner(decoded: Clips, stride: int) -> UInt8[np.ndarray, "b t y x 3"]:
    """The frames without a border of one stride, or whole where that would leave nothing."""
    height, width = decoded.shape[2:4]
    if height % stride or width % stride:
        raise UserError(f"frames of {height}x{width} do not divide by the stride {stride}: use a multiple of it")
    if min(height, width) < 3 * stride:
        return decoded
    return decoded[:, :, stride:-stride, stride:-stride]


def _mean_tile(frames: Clips, stride: int) -> Float64[np.ndarray, "b t stride stride 3"]:
    """The mean over each frame's stride x stride tiles, less its colour.

    Its Fourier transform is the frame's at the multiples of 1/stride, and no other frequency: those average out.
    """
    clips, time, height, width, _ = frames.shape
    tiles = frames.reshape(clips, time, height // stride, stride, width // stride, stride, 3)
    tile = tiles.mean(axis=(2, 4))
    deviations: np.ndarray = tile - tile.mean(axis=(2, 3), keepdims=True)
    return deviations


def _amplitudes(tile: Float64[np.ndarray, "b t n n 3"]) -> Float64[np.ndarray, "b t n n 3"]:
    """The amplitude of the real sinusoid at every row and column frequency.

    It is shared by a frequency and its negative, so twice |F| / n^2; but a frequency that is its own negative (each
    of row and column 0 or 1/2) holds the whole.
    """
    stride = tile.shape[2]
    self_conjugate = 2 * np.arange(stride) % stride == 0
    shares = np.where(self_conjugate[:, None] & self_conjugate, 1, 2)[..., None]
    amplitudes: np.ndarray = shares * np.abs(np.fft.fft2(tile, axes=(2, 3))) / stride**2
    return amplitudes
