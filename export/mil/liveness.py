"""Which values live when, and what each op costs: FLOPs, weight bytes and activation bytes from the op list alone."""

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
    """One op: FLOPs of its products (a multiply-add is 2), bytes of weights as stored, bytes it reads and writes.

    Whole numbers such as axes and shapes are no weights.
    """

    op: str
    name: str
    flops: int
    weight_bytes: int
    read_bytes: int
    written_bytes: int


def arguments(op: Any) -> list[Any]:
    """The values that an op takes, lists opened."""
    values: list[Any] = []
    for value in op.inputs.values():
        values.extend(value if isinstance(value, tuple | list) else [] if value is None else [value])
    return values


def dying(function: Any) -> list[set[Any]]:
    """For each op, the values that nothing needs after it. The function's outputs never die."""
    seen = set(function.outputs)
    last: list[set[Any]] = []
    for op in reversed(function.operations):
        values = {*arguments(op), *op.outputs} - seen
        seen |= values
        last.append(values)
    return last[::-1]


def live_bytes(function: Any, counts: Callable[[Any], bool] | None = None) -> list[int]:
    """What lives while each op runs, its inputs and outputs together: intermediates, inputs and outputs, no constants.

    Every op's result counts as a buffer of its own, also that of a reshape; states, which live outside, do not count.
    `counts` picks among the values.
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
    """The largest sum of live values over the ops in their order."""
    return max(live_bytes(function))


def op_costs(function: Any) -> list[OpCost]:
    """The cost of each op that is no constant, in the program's order."""
    return [_cost(op) for op in function.operations if not is_constant(op)]


def bytes_of(var: Any) -> int:
    """Size of a value; dimensions that only the call decides count as 1."""
    return math.ceil(_elements(var.shape) * _bits(var.dtype) / 8)


def _cost(op: Any) -> OpCost:
    weights = {part for var in arguments(op) if types.is_float(var.dtype) for part in _stored(var)}
    read = sum(bytes_of(var) for var in arguments(op) if _counts(var))
    written = sum(bytes_of(var) for var in op.outputs)
    return OpCost(op.op_type, op.outputs[0].name, _flops(op), sum(map(bytes_of, weights)), read, written)


def _counts(var: Any) -> bool:
    return not is_state(var) and (var.op is None or not is_constant(var.op))


def _stored(var: Any) -> set[Any]:
    """The numbers in the file that a value is made of, unless it is computed from inputs."""
    if var.op is None or not is_constant(var.op):
        return set()
    if var.op.op_type == "const":
        return {var}
    return {stored for part in arguments(var.op) for stored in _stored(part)}


def _flops(op: Any) -> int:
    """2 x the products of matrices, convolutions and attention; what works value by value is 0, as in cost/flops.py."""
    inputs, result = op.inputs, op.outputs[0]
    if op.op_type == "linear":
        return 2 * _elements(result.shape) * inputs["x"].shape[-1]
    if op.op_type == "matmul":
        return 2 * _elements(result.shape) * inputs["x"].shape[-2 if _true(inputs["transpose_x"]) else -1]
    if op.op_type == "conv":
        return 2 * _elements(result.shape) * _elements(inputs["weight"].shape[1:])
    if op.op_type == "conv_transpose":
        return 2 * _elements(inputs["x"].shape) * _elements(inputs["weight"].shape[1:])
    if op.op_type == "scaled_dot_product_attention":
        query, keys = inputs["query"].shape, inputs["key"].shape[-2]
        return 2 * _elements(query[:-1]) * keys * (query[-1] + inputs["value"].shape[-1])
    return _einsum_flops(op) if op.op_type == "einsum" else 0


def _einsum_flops(op: Any) -> int:
    """2 x the product of the sizes of all letters."""
    terms = op.inputs["equation"].val.split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, var in zip(terms, op.inputs["values"], strict=True):
        for letter, size in zip(term.strip(), var.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))  # a 1 is broadcast
    return 2 * math.prod(sizes.values())


def _true(var: Any) -> bool:
    return var is not None and bool(var.val)


def _elements(shape: tuple[Any, ...]) -> int:
    return math.prod(int(size) for size in shape if not is_symbolic(size))


def _bits(dtype: Any) -> int:
    return 8 if dtype == types.bool else dtype.get_bitwidth()
