"""Bytes that one call of a compiled program reads from and writes to a device's main memory."""

from collections.abc import Mapping

from mobile_video_jax.cost.tpu.collectives import is_collective
from mobile_video_jax.cost.tpu.hlo import Instruction, Program, Shape

# Names and views of other results. A -done only ends its -start. Loops and choices are counted by what they run.
VIEWS = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "partition-id", "iota"}
MOVES_NOTHING = VIEWS | {"while", "conditional"}


def memory_traffic(program: Program) -> float:
    """Bytes of operands and results of all instructions that run one by one, except arrays in a TPU's VMEM.

    Results within a fusion make no traffic, nor do arrays that it passes on, as those of a collective that moves beside
    it: the start and the end of that count. Of an array that is only sliced, or updated in place, as stacked layers are
    in a scan, the slice counts.
    """
    return sum(
        runs * moved_bytes(program, instruction, computation)
        for runs, computation in program.scheduled()
        for instruction in computation.values()
    )


def moved_bytes(program: Program, instruction: Instruction, computation: Mapping[str, Instruction]) -> int:
    """Bytes that one run of an instruction reads and writes."""
    operation = instruction.operation
    if operation in MOVES_NOTHING or operation.endswith("-done"):
        return 0
    shapes = [computation[name].shapes[0] for name in instruction.operands if computation[name].shapes]
    if operation == "fusion":
        body = program.computations[instruction.called["calls"]]
        return _fused(shapes, instruction.shapes, body)
    if operation == "dynamic-update-slice":
        return 2 * shapes[1].bytes
    if "slice" in operation:
        part = instruction.shapes[1 if operation.endswith("-start") else 0]
        return part.bytes + _memory_bytes(part)
    # A -start returns its operands, then its result.
    results = instruction.shapes[:1] if operation.endswith("-start") else instruction.shapes
    return sum(map(_memory_bytes, shapes)) + sum(map(_memory_bytes, results))


def _memory_bytes(shape: Shape) -> int:
    return 0 if shape.in_vmem else shape.bytes


def _fused(operands: list[Shape], results: tuple[Shape, ...], body: Mapping[str, Instruction]) -> int:
    parameters = {int(i.text.partition(")")[0]): i.name for i in body.values() if i.operation == "parameter"}
    read = sum(_memory_bytes(shape) and _read(parameters[i], shape, body) for i, shape in enumerate(operands))
    root = next(i for i in body.values() if i.is_root)
    roots = [body[name] for name in root.operands] if root.operation == "tuple" else [root]
    written = sum(_memory_bytes(shape) and _written(value, body) for value, shape in zip(roots, results, strict=False))
    return read + written


def _read(parameter: str, shape: Shape, body: Mapping[str, Instruction]) -> int:
    users = [i for i in body.values() if parameter in i.operands]
    sliced = 0
    for user in users:
        if is_collective(user) or user.operation == "tuple" or "AsyncCollective" in user.text:
            continue
        if user.operation in ("dynamic-slice", "slice"):
            sliced += user.shapes[0].bytes
        elif user.operation != "dynamic-update-slice" or user.operands[0] != parameter:
            return shape.bytes
    return min(sliced, shape.bytes)


def _written(value: Instruction, body: Mapping[str, Instruction]) -> int:
    while value.operation == "bitcast":
        value = body[value.operands[0]]
    if value.operation == "parameter" or is_collective(value):
        return 0
    source = body[value.operands[1]] if value.operation == "dynamic-update-slice" else value
    return sum(shape.bytes for shape in source.shapes)
