"""The time of ops on a device: of each, the longer of its arithmetic and its traffic with memory."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence

from mobile_video_jax.cost.phone.ops import Op


@dataclasses.dataclass(frozen=True)
class Device:
    """A chip's fp16 operations a second (a multiply-add is two), and its bytes of memory a second."""

    flops: float
    bandwidth: float


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What is assumed of every chip; mobile_video_jax/cost/phone/table.py tells where the numbers are from.

    `compute` and `memory` are the shares of a chip's figures that are reached, `on_chip` the bytes up to which a tensor
    never leaves the chip, `call` and `op` seconds that a call and an op in it take beside their work.
    """

    compute: float
    memory: float
    on_chip: int
    call: float
    op: float = 0.0


def op_seconds(op: Op, device: Device, assumptions: Assumptions) -> float:
    """The roofline of one op: t = max(FLOPs / (compute P), bytes / (memory B)) + overhead.

    P and B are the device's figures (Williams et al. 2009, doi:10.1145/1498765.1498785).
    """
    arithmetic = op.flops / (assumptions.compute * device.flops)
    traffic = (op.weight_bytes + activation_bytes(op, assumptions)) / (assumptions.memory * device.bandwidth)
    return max(arithmetic, traffic) + assumptions.op


def activation_bytes(op: Op, assumptions: Assumptions) -> int:
    """Bytes of values that an op reads from memory or writes there."""
    return sum(value.bytes for value in op.values if value.whole > assumptions.on_chip)


def call_seconds(ops: Sequence[Op], device: Device, assumptions: Assumptions) -> float:
    """The time of a call of a package, op after op."""
    return assumptions.call + sum(op_seconds(op, device, assumptions) for op in ops)


def seconds_by(
    ops: Iterable[Op], name_of: Callable[[Op], str], device: Device, assumptions: Assumptions
) -> dict[str, float]:
    """The ops' seconds summed by a name of each, the longest first."""
    seconds: collections.defaultdict[str, float] = collections.defaultdict(float)
    for op in ops:
        seconds[name_of(op)] += op_seconds(op, device, assumptions)
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))
