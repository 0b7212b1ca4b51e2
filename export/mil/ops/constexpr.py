"""Compressed weights: palettes, blockwise scales, sparse ones."""

import math
from typing import Any

import numpy as np

from mobile_video_jax.core.errors import UserError

PREFIX = "constexpr_"


def decompressed(var: Any) -> np.ndarray:
    """The values of a constant, however many compressing ops it comes through, in its declared type.

    Raises UserError for an op that coremltools has no numbers for.
    """
    if var.val is not None:
        return np.asarray(var.val)
    results = _decompress(var.op)
    return results[var.op.outputs.index(var)] if isinstance(results, tuple) else results


def _decompress(op: Any) -> Any:
    sources = {name: op.inputs.get(name) for name in op.input_spec.input_types}
    values: dict[str, Any] = {name: None if var is None else decompressed(var) for name, var in sources.items()}
    if op.op_type == "constexpr_cast":
        return values["source_val"].astype(np.float32)
    if op.op_type == "constexpr_lut_to_dense" and "shape" not in sources:
        return lut_to_dense(**values)
    if not hasattr(op, "decompress"):
        raise UserError(
            f"op {op.op_type} (output {op.outputs[0].name}) has no kernel: weights of this kind are unknown"
        )
    return op.decompress(**values)


def lut_to_dense(indices: np.ndarray, lut: np.ndarray, vector_axis: np.generic | None) -> np.ndarray:
    """Values [n...] of indices [n...] into tables [g..., 2^bits, v], one for each of the g... groups of the axes.

    Vectors, v > 1, lie along `vector_axis` of the result. coremltools' own copies a whole table for every index.
    """
    *groups, entries, length = lut.shape
    table = np.arange(math.prod(groups)).reshape(groups)
    for axis, (size, count) in enumerate(zip(indices.shape, groups, strict=True)):
        table = table.repeat(size // count, axis)
    values = lut.reshape(-1, length)[table * entries + indices.astype(np.int64)]
    if length == 1:
        return values[..., 0]
    axis = int(vector_axis) % indices.ndim  # type: ignore[arg-type]
    shape = [size * length if place == axis else size for place, size in enumerate(indices.shape)]
    return np.moveaxis(values, -1, axis + 1).reshape(shape)
