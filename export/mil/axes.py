"""Axes of a program's values that are longer than the neural engine takes.

The limits are public measurements (ane-guide, chapter 17): heights and widths of 16,384, 65,536 channels.
"""

from typing import Any

from coremltools.converters.mil.mil.types.symbolic import is_symbolic

from export.mil.ops.table import is_constant

LONGEST, MOST_CHANNELS = 16_384, 65_536


def warnings(function: Any) -> list[str]:
    """One line for the program's longest axis beyond the limits, if any: ops on it would leave the engine."""
    beyond = [
        (size, var.name, limit)
        for op in function.operations
        if not is_constant(op)
        for var in op.outputs
        for axis, size in enumerate(var.shape)
        if not is_symbolic(size) and size > (limit := MOST_CHANNELS if axis == 1 else LONGEST)
    ]
    if not beyond:
        return []
    size, name, limit = max(beyond)
    return [f"{len(beyond)} axes are longer than the neural engine takes, that of {name} is {size:,} of {limit:,}"]
