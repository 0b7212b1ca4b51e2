"""Spectrum of latents or pixels: mean amplitude by spatial frequency, from the blockwise DCT.

Source: "Improving the Diffusability of Autoencoders" (arXiv 2502.14831), which finds that latents with too much high
frequency are hard to diffuse.
"""

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Shaped
from scipy import fft

from mobile_video_jax.core.errors import UserError

Curve = Float64[np.ndarray, "n"]


def zigzag(block: int) -> Int[np.ndarray, "n 2"]:
    """The (row, column) frequencies of a block x block DCT in JPEG's order (ITU-T T.81, figure 5): [block^2, 2]."""

    def along(frequency: tuple[int, ...]) -> tuple[int, int]:
        row, column = frequency
        # Odd diagonals run down and even ones up.
        return row + column, row if (row + column) % 2 else column

    return np.array(sorted(np.ndindex(block, block), key=along))


def dct_curve(values: Float[np.ndarray, "*b h w c"], block: int = 8) -> Curve:
    """Mean amplitude of every DCT frequency over that of the mean (DC), in zig-zag order: [block^2], the first is 1.

    Every frame and channel is cut into block x block tiles; rows and columns left over at the end stay out. White
    noise of zero mean gives a flat curve, a constant 1, 0, 0, ... Raises UserError for frames smaller than a block.
    """
    height, width, channels = values.shape[-3:]
    rows, columns = height // block, width // block
    if not rows or not columns:
        raise UserError(f"a frame of {height}x{width} holds no block of {block}x{block}: use larger clips")
    whole = values[..., : rows * block, : columns * block, :]
    tiles = whole.reshape(-1, rows, block, columns, block, channels)
    amplitude = np.abs(fft.dctn(tiles, axes=(2, 4), norm="ortho")).mean(axis=(0, 1, 3, 5), dtype=np.float64)
    # The paper averages |D_uv / D_00| over tiles; we divide the means, because one tile's D_00 may be near zero.
    relative: np.ndarray = amplitude[tuple(zigzag(block).T)] / amplitude[0, 0]
    return relative


def standardised(values: Shaped[np.ndarray, "b t h w c"]) -> Float32[np.ndarray, "b t h w c"]:
    """Clips of latents or pixels with mean 0 and deviation 1 in every channel.

    An offset would add to the DC amplitude, by which `dct_curve` divides, and so lower the curve of pixels alone.
    """
    values = values.astype(np.float32)
    axes = (0, 1, 2, 3)
    mean, deviation = values.mean(axes, dtype=np.float64), values.std(axes, dtype=np.float64)
    result: np.ndarray = ((values - mean) / np.where(deviation > 0, deviation, 1)).astype(np.float32)
    return result


def high_frequency_share(curve: Curve) -> float:
    """The share (0 to 1) of the amplitudes but the DC that lies in the upper half of the curve's zig-zag order.

    White noise has about one half. Raises UserError where there is no amplitude but the DC.
    """
    total = curve[1:].sum()
    if not total:
        raise UserError("this curve holds the mean alone: use blocks of at least 2x2 and values that vary")
    return float(curve[len(curve) // 2 :].sum() / total)
