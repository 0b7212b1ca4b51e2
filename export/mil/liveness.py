"""Live values and the cost of each op, from a program's op list alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.types.symbolic import is_symbolic

from export.mil.ops.state import is_state
from export.mil.ops.table import is_constant

PRODUCTS = ("conv", "linear", "matmul")


@dataclass(frozen=True)
class OpCost:
    """The cost of one op."""

    op: str
    name: str
    flops: int  # of products; a multiply-add is 2
    weight_bytes: int  # as stored; integers such as axes and shapes are no weights
    read_bytes: int  # of activations
    written_bytes: int


def arguments(op: Any) -> list[Any]:
    """The values that an op takes, those of its lists included."""
    values: list[Any] = []
    for value in op.inputs.values():
        values.extend(value if isinstance(value, tuple | list) else [] if value is None else [value])
    return values


def dying(function: Any) -> list[set[Any]]:
    """The values that no op needs after each op. The function's outputs never die."""
    needed = set(function.outputs)
    dead: list[set[Any]] = []
    for op in reversed(function.operations):
        values = {*arguments(op), *op.outputs} - needed
        needed |= values
        dead.append(values)
    return dead[::-1]


def live_bytes(function: Any, counts: Callable[[Any], bool] | None = None) -> list[int]:
    """Bytes of the values that live while each op runs, its own inputs and outputs included.

    Every result counts as a buffer of its own, also that of a reshape. Constants and states, which live outside, do not
    count. `counts` selects among the values.
    """
    counts = counts or _counts
    live = sum(bytes_of(var) for var in function.inputs.values() if counts(var))
    sums = []
    for op, dead in zip(function.operations, dying(function), strict=True):
        live += sum(bytes_of(var) for var in op.outputs if counts(var))
        sums.append(live)
        live -= sum(bytes_of(var) for var in dead if counts(var))
    return sums


def peak_live_bytes(function: Any) -> int:
    """The most bytes that live at a time, with the ops in their order."""
    return max(live_bytes(function))


def op_costs(function: Any) -> list[OpCost]:
    """The cost of each op that is no constant, in the program's order."""
    return [_cost(op) for op in function.operations if not is_constant(op)]


def bytes_of(var: Any) -> int:
    """Bytes of a value; sizes that the package leaves open count as 1."""
    return math.ceil(_elements(var.shape) * _bits(var.dtype) / 8)


def _cost(op: Any) -> OpCost:
    weights = {part for var in arguments(op) if types.is_float(var.dtype) for part in _stored(var)}
    read = sum(bytes_of(var) for var in arguments(op) if _counts(var))
    written = sum(bytes_of(var) for var in op.outputs)
    return OpCost(op.op_type, op.outputs[0].name, _flops(op), sum(map(bytes_of, weights)), read, written)


def _counts(var: Any) -> bool:
    return not is_state(var) and (var.op is None or not is_constant(var.op))


def _stored(var: Any) -> set[Any]:
    """The constants in the file that a value is decompressed from; none if it is computed from inputs."""
    if var.op is None or not is_constant(var.op):
        return set()
    if var.op.op_type == "const":
        return {var}
    return {stored for part in arguments(var.op) for stored in _stored(part)}


def _flops(op: Any) -> int:
    """2 x the products of matrices, convolutions and attention; element-wise ops count 0, as in cost/flops.py."""
    inputs, result = op.inputs, op.outputs[0]
    if op.op_type == "linear":
        return 2 * _elements(result.shape) * _size(inputs["x"].shape[-1])
    if op.op_type == "matmul":
        return 2 * _elements(result.shape) * _size(inputs["x"].shape[-2 if _true(inputs["transpose_x"]) else -1])
    if op.op_type == "conv":
        return 2 * _elements(result.shape) * _elements(inputs["weight"].shape[1:])
    if op.op_type == "conv_transpose":
        return 2 * _elements(inputs["x"].shape) * _elements(inputs["weight"].shape[1:])
    if op.op_type == "scaled_dot_product_attention":
        query, keys = inputs["query"].shape, inputs["key"].shape[-2]
        return 2 * _elements(query[:-1]) * _size(keys) * (_size(query[-1]) + _size(inputs["value"].shape[-1]))
    return _einsum_flops(op) if op.op_type == "einsum" else 0


def _einsum_flops(op: Any) -> int:
    """2 x the product of the sizes of all letters of the equation."""
    terms = op.inputs["equation"].val.split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, var in zip(terms, op.inputs["values"], strict=True):
        for letter, size in zip(term.strip(), var.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))  # a 1 is broadcast
    return 2 * math.prod(sizes.values())


def _true(var: Any) -> bool:
    return var is not None and bool(var.val)


def _elements(shape: tuple[Any, ...]) -> int:
    return math.prod(map(_size, shape))


def _size(size: Any) -> int:
    """A size, or 1 where the package leaves it open."""
    return 1 if is_symbolic(size) else int(size)


def _bits(dtype: Any) -> int:
    return 8 if dtype == types.bool else dtype.get_bitwidth()
