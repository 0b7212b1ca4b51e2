"""The time of ops on a phone: of each op, the longer of its arithmetic and its traffic with memory."""

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mobile_video_jax.cost.phone.ops import Op
from mobile_video_jax.cost.phone.table import ASSUMED, DEVICE, Assumptions, Device


def op_seconds(op: Op, device: Device = DEVICE, assumptions: Assumptions = ASSUMED) -> float:
    """The roofline of one op: t = max(FLOPs / (compute P), bytes / (memory B)) + overhead.

    P and B are the device's figures (Williams et al. 2009, doi:10.1145/1498765.1498785).
    """
    arithmetic = op.flops / (assumptions.compute * device.flops)
    traffic = (op.weight_bytes + activation_bytes(op, assumptions)) / (assumptions.memory * device.bandwidth)
    return max(arithmetic, traffic) + assumptions.op


def activation_bytes(op: Op, assumptions: Assumptions = ASSUMED) -> int:
    """Bytes of values that an op reads from memory or writes to it."""
    return sum(value.bytes for value in op.values if value.whole > assumptions.on_chip)


def call_seconds(ops: Iterable[Op], device: Device = DEVICE, assumptions: Assumptions = ASSUMED) -> float:
    """Seconds of one call of a network, op after op."""
    return assumptions.call + sum(op_seconds(op, device, assumptions) for op in ops)


def seconds_by(
    ops: Iterable[Op], name_of: Callable[[Op], str], device: Device = DEVICE, assumptions: Assumptions = ASSUMED
) -> dict[str, float]:
    """Seconds of the ops summed by a name of each, the longest first; without those of the call."""
    seconds: collections.defaultdict[str, float] = collections.defaultdict(float)
    for op in ops:
        seconds[name_of(op)] += op_seconds(op, device, assumptions)
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def totals(ops: Sequence[Op]) -> dict[str, Any]:
    """Seconds, FLOPs, bytes and ops of one call."""
    return {
        "seconds": call_seconds(ops),
        "flops": sum(op.flops for op in ops),
        "weight_bytes": sum(op.weight_bytes for op in ops),
        "activation_bytes": sum(map(activation_bytes, ops)),
        "ops": len(ops),
    }
