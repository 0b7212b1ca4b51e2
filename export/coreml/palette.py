"""A weight as one table of 2^bits numbers and an index into it for each of its own."""

import numpy as np

ROUNDS = 100


def palette(weight: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The sorted table [2^bits] in fp16 and the indices [n], in order, that k-means finds for a weight of n numbers.

    Fp16 has few numbers, so that each is taken once, with its count: a table of words takes a second or two, where
    coremltools' own k-means takes minutes; the errors are those of k-means++ within a few percent.
    """
    values, places, counts = np.unique(weight.astype(np.float16), return_inverse=True, return_counts=True)
    values, size = values.astype(np.float64), 2**bits
    if len(values) <= size:
        table = np.pad(values, (0, size - len(values)), mode="edge")
    else:
        table = _means(values, counts, size)
    nearest = np.searchsorted((table[1:] + table[:-1]) / 2, values)
    return table.astype(np.float16), nearest[places.ravel()].astype(np.uint8)


def palettized(weight: np.ndarray, bits: int) -> np.ndarray:
    """The weight that the palette stands for."""
    table, indices = palette(weight, bits)
    return table[indices].reshape(weight.shape).astype(weight.dtype)


def _means(values: np.ndarray, counts: np.ndarray, size: int) -> np.ndarray:
    """Lloyd's k-means over sorted values, whose clusters are spans between the centres' midpoints.

    Centres start at equal shares of density^(1/3), the best for many narrow spans (Panter and Dite, "Quantization
    distortion in pulse-count modulation with nonuniform spacing of levels", 1951); density is counts / gaps.
    """
    totals, moments = (np.concatenate([[0.0], np.cumsum(x)]) for x in (counts, counts * values))
    shares = np.cumsum(np.cbrt(counts * np.gradient(values) ** 2))
    centres = np.interp((np.arange(size) + 0.5) / size * shares[-1], shares, values)
    for _ in range(ROUNDS):
        inner = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
        cuts = np.concatenate([[0], inner, [len(values)]])
        members = np.diff(totals[cuts])
        found = np.where(members > 0, np.diff(moments[cuts]) / np.maximum(members, 1), centres)
        if np.array_equal(found, centres):
            break
        centres = found
    return centres
