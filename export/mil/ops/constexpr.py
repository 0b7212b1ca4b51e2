"""Compressed weights: palettes, blockwise scales, sparse tensors."""

import math
from typing import Any

import numpy as np
from jaxtyping import Shaped

from mobile_video_jax.core.errors import UserError

PREFIX = "constexpr_"  # of the ops that decompress


def decompressed(var: Any) -> np.ndarray:
    """The values of a constant in its declared type, decompressed by as many ops as it takes.

    Raises UserError for an op that coremltools cannot decompress.
    """
    if var.val is not None:
        return np.asarray(var.val)
    results = _decompress(var.op)
    values: np.ndarray = results[var.op.outputs.index(var)] if isinstance(results, tuple) else results
    return values


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


def lut_to_dense(
    indices: Shaped[np.ndarray, "*n"], lut: Shaped[np.ndarray, "*g entries v"], vector_axis: np.generic | int | None
) -> np.ndarray:
    """Values [n...] of indices into the tables of g... groups of the axes; there are 2^bits entries of v numbers.

    Vectors, v > 1, lie along `vector_axis` of the result. coremltools' own function copies a table for every index.
    """
    *groups, entries, length = lut.shape
    table = np.arange(math.prod(groups)).reshape(groups)
    for axis, (size, count) in enumerate(zip(indices.shape, groups, strict=True)):
        table = table.repeat(size // count, axis)
    values: np.ndarray = lut.reshape(-1, length)[table * entries + indices.astype(np.int64)]
    if length == 1:
        return values[..., 0]
    assert vector_axis is not None
    axis = int(vector_axis) % indices.ndim
    shape = [size * length if i == axis else size for i, size in enumerate(indices.shape)]
    return np.moveaxis(values, -1, axis + 1).reshape(shape)
