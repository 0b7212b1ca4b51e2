"""Ranges of a program's values, and their distance to the ends of fp16."""

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = torch.finfo(torch.float16).max  # 65,504
SMALLEST_NORMAL = torch.finfo(torch.float16).smallest_normal  # 2^-14, about 6.1e-5
# A warning comes before the overflow: other clips reach further than the one at hand.
HEADROOM = 2.0


@dataclass(frozen=True)
class Range:
    """The values of one op's result before they are rounded to fp16.

    `largest` is the largest finite magnitude, `overflows` counts finite values that fp16 cannot hold.
    """

    op: str
    name: str
    largest: float
    overflows: int
    nans: int

    @property
    def warning(self) -> str | None:
        """What is wrong or nearly so, in one line."""
        place = f"{self.op} {self.name}"
        if self.nans:
            return f"{place}: {self.nans} values are not numbers"
        if self.overflows:
            return f"{place}: {self.overflows} values overflow fp16, the largest is {self.largest:.6g}"
        if self.largest * HEADROOM > LARGEST:
            return f"{place}: the largest value, {self.largest:.6g}, is near fp16's end, {LARGEST:.6g}"
        if 0 < self.largest < SMALLEST_NORMAL:
            return f"{place}: all values are subnormal in fp16, up to {self.largest:.2g}: hardware may read them as 0"
        return None


def measure(op: str, name: str, values: Tensor) -> Range:
    """The range of floating-point values that are about to be rounded to fp16."""
    least, most = torch.aminmax(values)
    largest = max(-float(least), float(most))
    if largest <= LARGEST:
        return Range(op, name, largest, 0, 0)
    finite = values[values.isfinite()].abs()
    nans = int(values.isnan().sum())
    return Range(op, name, float(finite.max()) if len(finite) else 0.0, int(finite.half().isinf().sum()), nans)
