"""The table of ops: a function of float32 values for each, with MIL's names for its arguments.

An argument is a tensor, a string, a tuple of tensors or a State; constants are tensors too. They mean what coremltools'
op definitions say (coremltools.converters.mil.mil.ops.defs).
"""

from typing import Any

from export.mil.ops import elementwise as ops_elementwise
from export.mil.ops import linear as ops_linear
from export.mil.ops import reduce as ops_reduce
from export.mil.ops import resample as ops_resample
from export.mil.ops import shape as ops_shape
from export.mil.ops import state as ops_state
from export.mil.ops.constexpr import PREFIX
from export.mil.ops.elementwise import Kernel
from mobile_video_jax.core.errors import UserError

KERNELS: dict[str, Kernel] = {
    **ops_elementwise.KERNELS,
    **ops_linear.KERNELS,
    **ops_shape.KERNELS,
    **ops_reduce.KERNELS,
    **ops_resample.KERNELS,
    **ops_state.KERNELS,
}


def is_constant(op: Any) -> bool:
    """True where an op is a weight, compressed or not."""
    kind: str = op.op_type
    return kind == "const" or kind.startswith(PREFIX)


def is_packed(op: Any) -> bool:
    """True where an op's numbers are only parts of compressed weights, such as 4-bit indices."""
    users = [user for var in op.outputs for user in var.child_ops]
    return bool(users) and all(user.op_type.startswith(PREFIX) for user in users)


def refuse_unknown(function: Any) -> None:
    """Raises UserError naming the first op that has no kernel, before anything is computed."""
    for op in function.operations:
        if not is_constant(op) and op.op_type not in KERNELS:
            raise UserError(
                f"op {op.op_type} (output {op.outputs[0].name}) has no kernel: add it to export/mil/ops/table.py"
                " or leave it out of the package"
            )
