"""Ranges of a program's values, and their distance to the ends of fp16."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

LARGEST = torch.finfo(torch.float16).max  # 65,504
SMALLEST_NORMAL = torch.finfo(torch.float16).smallest_normal  # 2^-14, about 6.1e-5
ROUNDING = 2.0**-11  # of fp16, relative
# A warning comes before the overflow: other clips reach further than the one at hand.
HEADROOM = 2.0


@dataclass(frozen=True)
class Range:
    """The values of one op's result before they are rounded to fp16."""

    op: str
    name: str
    largest: float  # finite magnitude
    overflows: int  # finite values that fp16 cannot hold
    nans: int
    absorbed: bool = False  # subnormal, and smaller than the rounding of every sum that it enters

    @property
    def subnormal(self) -> bool:
        """True where all values are below fp16's smallest normal number, and some are not 0."""
        return 0 < self.largest < SMALLEST_NORMAL

    @property
    def severity(self) -> int | None:
        """0 for values that fp16 cannot hold, 1 near its largest, 2 subnormal; None for nothing to warn of."""
        if self.nans or self.overflows:
            return 0
        if self.largest * HEADROOM > LARGEST:
            return 1
        return 2 if self.subnormal and not self.absorbed else None

    @property
    def warning(self) -> str:
        """The fault in one line."""
        place = f"{self.op} {self.name}"
        if self.nans:
            return f"{place}: {self.nans} values are not numbers"
        if self.overflows:
            return f"{place}: {self.overflows} values overflow fp16, the largest is {self.largest:.6g}"
        if self.subnormal:
            return f"{place}: all values are subnormal in fp16, up to {self.largest:.2g}: hardware may read them as 0"
        return f"{place}: the largest value, {self.largest:.6g}, is near fp16's end, {LARGEST:.6g}"


class RangeLog:
    """The ranges of a program's values, in the order in which they are computed."""

    def __init__(self) -> None:
        self._ranges: dict[Any, Range] = {}
        self._absorbed: Counter[Any] = Counter()

    def measure(self, op: str, var: Any, values: Tensor) -> None:
        """Measures floating-point values that are about to be rounded to fp16."""
        self._ranges[var] = measure(op, var.name, values)

    def measure_sum(self, terms: Iterable[Any], total: Tensor) -> None:
        """Notes subnormal terms below the rounding of their sum: to read them as 0 changes nothing."""
        for var in terms:
            span = self._ranges.get(var)
            if span is not None and span.subnormal and span.largest < ROUNDING * float(total.abs().min()):
                self._absorbed[var] += 1

    def ranges(self) -> list[Range]:
        """The range of every value."""
        return [
            replace(span, absorbed=0 < len(var.child_ops) <= self._absorbed[var]) for var, span in self._ranges.items()
        ]


def warnings(ranges: Iterable[Range]) -> list[str]:
    """One line for each fault: overflows and not-a-number in the program's order, then the less severe."""
    faults = [(span.severity, span.warning) for span in ranges if span.severity is not None]
    return [warning for _, warning in sorted(faults, key=lambda fault: fault[0])]


def measure(op: str, name: str, values: Tensor) -> Range:
    """The range of floating-point values that are about to be rounded to fp16."""
    least, most = torch.aminmax(values)
    largest = max(-float(least), float(most))
    if largest <= LARGEST:
        return Range(op, name, largest, overflows=0, nans=0)
    finite = values[values.isfinite()].abs()
    largest = float(finite.max()) if len(finite) else 0.0
    return Range(op, name, largest, overflows=int(finite.half().isinf().sum()), nans=int(values.isnan().sum()))
