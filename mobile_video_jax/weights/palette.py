"""Palettes: a weight as a table of 2^bits numbers and an index into it for each of its own."""

import numpy as np
from jaxtyping import Float16, Float64, Int, Shaped, UInt8

ROUNDS = 100  # of k-means, at most


def palette(
    weight: Shaped[np.ndarray, "*s"], bits: int
) -> tuple[Float16[np.ndarray, "{2**bits}"], UInt8[np.ndarray, "n"]]:
    """The sorted table, and the index of each number in order, that k-means finds for a weight of n numbers.

    The table has an exact 0 where an output channel is all zeros, as one that was pruned in place is.

    Fp16 has few numbers, so each is taken once, with its count: a table of words takes a second or two, where
    coremltools' own k-means takes minutes; the errors are those of k-means++ within a few percent.
    """
    # Sorted as float64: on some processors numpy 2.3 leaves a sorted float16 array out of order.
    numbers, size = weight.astype(np.float16).astype(np.float64), 2**bits
    values, positions, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    if len(values) <= size:
        table = np.pad(values, (0, size - len(values)), mode="edge")
    else:
        table = _means(values, counts, size)
    if (weight.reshape(len(weight), -1) == 0).all(axis=1).any():
        table[np.abs(table).argmin()] = 0
    nearest = np.searchsorted((table[1:] + table[:-1]) / 2, values)
    return table.astype(np.float16), nearest[positions.ravel()].astype(np.uint8)


def palettized(weight: Shaped[np.ndarray, "*s"], bits: int) -> Shaped[np.ndarray, "*s"]:
    """The weight with each number replaced by the palette's."""
    table, indices = palette(weight, bits)
    values: np.ndarray = table[indices].reshape(weight.shape).astype(weight.dtype)
    return values


def _means(values: Float64[np.ndarray, "m"], counts: Int[np.ndarray, "m"], size: int) -> Float64[np.ndarray, "{size}"]:
    """Lloyd's k-means over sorted values, whose clusters are spans between the centres' midpoints.

    Centres start at equal shares of density^(1/3), the best for many narrow spans (Panter and Dite, "Quantization
    distortion in pulse-count modulation with nonuniform spacing of levels", 1951); density is counts / gaps.
    """
    totals, moments = (np.concatenate([[0.0], np.cumsum(x)]) for x in (counts, counts * values))
    shares = np.cumsum(np.cbrt(counts * np.gradient(values) ** 2))
    centres: np.ndarray = np.interp((np.arange(size) + 0.5) / size * shares[-1], shares, values)
    for _ in range(ROUNDS):
        inner = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
        ends = np.concatenate([[0], inner, [len(values)]])
        members = np.diff(totals[ends])
        means = np.where(members > 0, np.diff(moments[ends]) / np.maximum(members, 1), centres)
        if np.array_equal(means, centres):
            break
        centres = means
    return centres
