"""Time of operations that run while a collective moves, by the collective: what it may hide behind."""

import collections
from collections.abc import Callable, Mapping

from mobile_video_jax.cost.tpu.collectives import channel_of, is_collective
from mobile_video_jax.cost.tpu.hlo import Instruction, Program

ASYNC_FUSION = "async_collective_fusion"  # XLA's name of a fusion of a product and the steps of collectives


def hiding_seconds(
    program: Program, seconds: Callable[[Instruction, Mapping[str, Instruction]], float]
) -> Mapping[str, float]:
    """For each channel the seconds, in one call, of operations that move it along; `seconds` times one operation.

    These are the fusions that hold a collective beside a product, and what is scheduled between its start and its end.
    Collectives that move at the same time share that time.
    """
    hiding: dict[str, float] = collections.defaultdict(float)
    for runs, computation in program.scheduled():
        moving: dict[str, str] = {}  # the channel of each start that has not ended
        for instruction in computation.values():
            if is_collective(instruction) and instruction.operation.endswith("-start"):
                moving[instruction.name] = channel_of(instruction)
            elif instruction.operation.endswith("-done"):
                moving.pop(instruction.operands[0], None)
            else:
                channels = [*moving.values(), *_fused_channels(program, instruction)]
                for channel in channels:
                    hiding[channel] += runs * seconds(instruction, computation) / len(channels)
    return hiding


def _fused_channels(program: Program, instruction: Instruction) -> list[str]:
    name = instruction.called.get("calls", "")
    if not name.startswith(ASYNC_FUSION):
        return []
    return sorted({channel_of(inner) for inner in program.computations[name].values() if is_collective(inner)})
