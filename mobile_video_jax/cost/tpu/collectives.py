"""Collectives of a compiled program: the bytes that devices send each other in one call."""

import dataclasses
import math
import re

from mobile_video_jax.cost.tpu.hlo import Instruction, Program, Shape

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
# In a ring of n devices each sends (n - 1) / n of the array in a round; an all-reduce is a reduction and a gather.
ROUNDS = {"all-reduce": 2}


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a program."""

    kind: str
    channel: str  # the same for all instructions that are parts of it
    runs: float  # in one call of the program, in the mean where it is in a branch
    result: tuple[Shape, ...]
    bytes: int  # that one device sends over the chips' links (ICI) in one run
    dcn_bytes: int  # that it sends over the data-centre network between slices


def collectives(program: Program, slices: int = 1) -> list[Collective]:
    """The collectives of a program for `slices` slices.

    A collective that XLA runs in the background appears several times, as a start, an end and in the fusions that hide
    it; all copies have the same channel and count once. A fused all-reduce-scatter counts as a reduce-scatter. Programs
    of several slices are those of one: collectives are within it, and what crosses slices is sent to the host.
    """
    by_channel: dict[str, Collective] = {}
    for name, computation in program.computations.items():
        for instruction in computation.values():
            kind = instruction.operation.removesuffix("-start")
            if not program.runs.get(name) or kind not in (*KINDS, "send"):
                continue
            runs, operands = program.runs[name], _operand_bytes(instruction, computation)
            channel = channel_of(instruction)
            if kind == "send":
                each = _between_slices(instruction, channel, runs, operands, slices)
            else:
                if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                    kind = "reduce-scatter"
                each = Collective(kind, channel, runs, instruction.shapes, _sent(kind, operands, instruction.text), 0)
            by_channel[channel] = each
    return list(by_channel.values())


def is_collective(instruction: Instruction) -> bool:
    """True for what moves arrays between the chips of a slice, and for the start of that."""
    return instruction.operation.removesuffix("-start") in KINDS


def channel_of(instruction: Instruction) -> str:
    """The number that the parts of a collective have in common, or its name where it has none."""
    channel = re.search(r"channel_id=(\d+)", instruction.text)
    return channel[1] if channel else instruction.name


def summary(collectives: list[Collective]) -> dict[str, dict[str, int]]:
    """Runs and bytes of one device, by kind of collective, rounded."""
    kinds: dict[str, dict[str, float]] = {}
    for each in collectives:
        entry = kinds.setdefault(each.kind, {"count": 0, "bytes": 0, "dcn_bytes": 0})
        entry["count"] += each.runs
        entry["bytes"] += each.runs * each.bytes
        entry["dcn_bytes"] += each.runs * each.dcn_bytes
    return {kind: {key: round(value) for key, value in kinds[kind].items()} for kind in sorted(kinds)}


def _operand_bytes(instruction: Instruction, computation: dict[str, Instruction]) -> int:
    shapes = [shape for name in instruction.operands for shape in computation[name].shapes]
    return sum(shape.bytes for shape in shapes if shape.dtype != "token")


def _sent(kind: str, operands: int, text: str) -> int:
    if kind == "collective-permute":
        return operands
    size = group_size(text)
    whole = operands * size if kind == "all-gather" else operands
    return ROUNDS.get(kind, 1) * whole * (size - 1) // size


def _between_slices(instruction: Instruction, channel: str, runs: float, operands: int, slices: int) -> Collective:
    """An exchange between the hosts of all slices; a chip sends its own share of the array."""
    transfer = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.text)
    kind = transfer[1].lower().replace("_", "-") if transfer else "send"
    return Collective(
        kind, channel, runs, instruction.shapes, 0, ROUNDS.get(kind, 1) * operands * (slices - 1) // slices
    )


def group_size(text: str) -> int:
    """The number of devices in a group, in any of the forms that XLA writes.

    {{0,1},{2,3}}; [groups,size]<=[…] for reordered ranges; and mesh['a'=2,'b'=4] {'b'} for axes.
    """
    text = text.partition("replica_groups=")[2]
    if listed := re.match(r"\{\{([\d,]+)\}", text):
        return len(listed[1].split(","))
    if tiled := re.match(r"\[\d+,(\d+)\]<=", text):
        return int(tiled[1])
    axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", text.partition("]")[0])}
    used = re.search(r" \{([^}]*)\}", text)
    assert used, text[:200]
    return math.prod(axes[name] for name in re.findall(r"'(\w+)'", used[1]))
