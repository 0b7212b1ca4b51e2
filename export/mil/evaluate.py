"""Executes a function of a loaded package op by op, with the precision of the phone's values.

Every op computes in float32. Where the package declares fp16 its result is rounded to that, as inputs and weights are.
Hardware's accumulators (their width and order) and its own softmax and GELU are not modelled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.types.symbolic import is_symbolic
from torch import Tensor

from export.mil.liveness import arguments, dying
from export.mil.ops.constexpr import decompressed
from export.mil.ops.state import State, is_state, zero_states
from export.mil.ops.table import KERNELS, is_constant, is_packed, refuse_unknown
from export.mil.ranges import SMALLEST_NORMAL, Range, RangeLog, warnings
from mobile_video_jax.core.errors import UserError

# PyTorch computes little in unsigned types but bytes; the next wider types hold the same numbers.
DTYPES = {
    types.fp16: torch.float16,
    types.fp32: torch.float32,
    types.bool: torch.bool,
    types.int8: torch.int8,
    types.uint8: torch.uint8,
    types.int16: torch.int16,
    types.uint16: torch.int32,
    types.int32: torch.int32,
    types.uint32: torch.int64,
    types.int64: torch.int64,
}


@dataclass(frozen=True)
class Evaluation:
    """Outputs by name, in their declared types, and the range of every result that is rounded to fp16."""

    outputs: dict[str, np.ndarray]
    ranges: list[Range]

    @property
    def warnings(self) -> list[str]:
        """One line for each range that is at fp16's ends, the worst first."""
        return warnings(self.ranges)

    @property
    def largest(self) -> Range | None:
        """The range that comes nearest to fp16's end, weights aside; None for a program in float32."""
        computed = (span for span in self.ranges if not span.op.startswith("const"))
        return max(computed, key=lambda span: span.largest, default=None)


def evaluate(
    function: Any,
    inputs: Mapping[str, np.ndarray],
    states: dict[str, State] | None = None,
    *,
    flush_to_zero: bool = False,
) -> Evaluation:
    """Runs a function on inputs by name; `states`, of zero_states or an earlier call, are changed in place.

    `flush_to_zero` replaces numbers below fp16's smallest normal one, 2^-14, by 0, as some hardware does. Raises
    UserError for an op without a kernel, and where a result has another shape than the package declares.
    """
    refuse_unknown(function)
    states = zero_states(function) if states is None else states
    log = RangeLog()
    values: dict[Any, Any] = {}

    def store(var: Any, value: Tensor, op: str) -> None:
        if var.dtype == types.fp16:
            log.measure(op, var, value)
        values[var] = _declared(var, value, op, flush_to_zero)

    for name, var in function.inputs.items():
        if is_state(var):
            values[var] = states[name]
        else:
            store(var, torch.tensor(inputs[name]), "input")
    with torch.inference_mode():
        for op, dead in zip(function.operations, dying(function), strict=True):
            if is_constant(op) and is_packed(op):
                continue
            for var, value in zip(op.outputs, _results(op, values), strict=True):
                if isinstance(value, str):
                    values[var] = value
                else:
                    store(var, value, op.op_type)
            if op.op_type == "add":
                log.measure_sum(arguments(op), values[op.outputs[0]])
            for var in dead:
                values.pop(var, None)
    return Evaluation({var.name: values[var].numpy() for var in function.outputs}, log.ranges())


def fits(var: Any, shape: Sequence[int]) -> bool:
    """True where a shape is the declared one; a size that the package leaves open fits any."""
    return len(shape) == len(var.shape) and all(
        declared == size for declared, size in zip(var.shape, shape, strict=True) if not is_symbolic(declared)
    )


def _results(op: Any, values: Mapping[Any, Any]) -> tuple[Any, ...]:
    if is_constant(op):
        return tuple(_constant(var) for var in op.outputs)
    inputs = {name: _argument(source, values) for name, source in op.inputs.items() if source is not None}
    try:
        results = KERNELS[op.op_type](**inputs)
    except (TypeError, RuntimeError) as error:
        raise UserError(f"op {op.op_type} (output {op.outputs[0].name}) cannot be computed: {error}") from error
    return results if isinstance(results, tuple) else (results,)


def _constant(var: Any) -> Tensor | str:
    if types.is_str(var.dtype):
        return str(var.val)
    return torch.tensor(decompressed(var))


def _argument(source: Any, values: Mapping[Any, Any]) -> Any:
    """A value as kernels take it: fp16 becomes float32."""
    if isinstance(source, tuple | list):
        return tuple(_argument(var, values) for var in source)
    value = values[source]
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value


def _declared(var: Any, value: Tensor, op: str, flush_to_zero: bool) -> Tensor:
    """The value in the type and shape that the package declares."""
    if not fits(var, value.shape):
        raise UserError(
            f"op {op} (output {var.name}) gives {list(value.shape)}, the package declares {list(var.shape)}"
        )
    value = value.to(DTYPES[var.dtype])
    if flush_to_zero and var.dtype == types.fp16:
        value = value.masked_fill(value.abs() < SMALLEST_NORMAL, 0)
    return value
