"""A compiled program, read from its text: computations, their instructions, and how often a call runs each."""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

# bf16[8,128]{1,0:T(8,128)(2,1)S(1)}: a type, its extents, and a layout that names the memory space, S(1) for VMEM.
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^{}]*\})?")
# The name, the type (an array or a tuple, whose layouts hold brackets of their own) and the operation.
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%(\S+) = (.*?[)}\]]) ([a-z][a-z0-9-]*)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%(\S+) \(.*\{$")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition)=%([\w.-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_CONDITION = re.compile(r"\btrue_computation=(\S+), false_computation=(\S+)")


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array of an instruction's result."""

    dtype: str
    extents: tuple[int, ...]
    in_vmem: bool

    @property
    def bytes(self) -> int:
        """Size without the padding of tiles; a number of less than a byte counts as one."""
        bits = re.sub(r"\D*", "", self.dtype.partition("e")[0]) or "8"
        return math.prod(self.extents) * max(int(bits) // 8, 1)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `text` is all that follows the operation's name, operands first."""

    name: str
    operation: str
    shapes: tuple[Shape, ...]
    text: str
    is_root: bool

    @functools.cached_property
    def operands(self) -> list[str]:
        """Names of the instructions whose results are operands."""
        return re.findall(r"%([\w.-]+)", self.text[: self.text.find(")")])

    @functools.cached_property
    def called(self) -> dict[str, str]:
        """The computations that this one runs, by their role."""
        return dict(_CALLED.findall(self.text))

    @functools.cached_property
    def branches(self) -> list[str]:
        """The computations that this one chooses from, by their index; of a condition false is 0 and true is 1."""
        if listed := _BRANCHES.search(self.text):
            return re.findall(r"%([\w.-]+)", listed[1])
        condition = _CONDITION.search(self.text)
        return [condition[i].strip("%,") for i in (2, 1)] if condition else []


class Program:
    """A compiled program, read from its text (`compiled.as_text()`).

    `shares` tells how often a choice among as many branches takes each, in the mean over calls; other choices are
    counted with all their branches, more than they take.
    """

    def __init__(self, text: str, shares: Sequence[float] = ()):
        self.shares = shares
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            if start := _COMPUTATION.match(line):
                current = self.computations[start[2]] = {}
                self.entry = start[2] if start[1] else self.entry
            elif match := _INSTRUCTION.match(line):
                root, name, result, operation, rest = match.groups()
                current[name] = Instruction(name, operation, _shapes(result), rest, bool(root))

    @functools.cached_property
    def runs(self) -> Mapping[str, float]:
        """Runs of each computation in one call of the program, loop bodies once an iteration."""
        counts: dict[str, float] = collections.defaultdict(float)
        pending = [(self.entry, 1.0)]
        while pending:
            name, times = pending.pop()
            counts[name] += times
            for instruction in self.computations[name].values():
                called = instruction.called
                repeat = self._trips(called["condition"]) if instruction.operation == "while" else 1
                pending += [(other, times * repeat) for role, other in called.items() if role in ("calls", "body")]
                pending += [(other, times * share) for other, share in self._branch_shares(instruction)]
        return counts

    def _branch_shares(self, instruction: Instruction) -> list[tuple[str, float]]:
        branches = instruction.branches
        shares = self.shares if len(self.shares) == len(branches) else (1.0,) * len(branches)
        return list(zip(branches, shares, strict=True))

    def scheduled(self) -> Iterator[tuple[float, Mapping[str, Instruction]]]:
        """The entry, loop bodies and branches, whose instructions run one by one, each with its runs."""
        instructions = [each for computation in self.computations.values() for each in computation.values()]
        bodies = [each.called["body"] for each in instructions if each.operation == "while"]
        branches = [branch for each in instructions for branch in each.branches]
        for name in dict.fromkeys((self.entry, *bodies, *branches)):
            yield self.runs[name], self.computations[name]

    def _trips(self, condition: str) -> int:
        """Iterations of a loop: those of scans count from 0 to the constant that their condition compares with."""
        constants = [i for i in self.computations[condition].values() if i.operation == "constant"]
        return max(int(instruction.text.partition(")")[0]) for instruction in constants)


def _shapes(text: str) -> tuple[Shape, ...]:
    return tuple(
        Shape(dtype, tuple(int(size) for size in extents.split(",") if size), "S(1)" in layout)
        for dtype, extents, layout in _SHAPE.findall(text)
    )
