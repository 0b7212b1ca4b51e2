"""Ranges that numbers of configs and flags are declared with: `steps: Count = 40  # solver steps`."""

import dataclasses
from typing import Annotated, Literal


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, without the end that is `open`, and `also`. NaN and infinity are in no range.

    Of a tuple it is the number of items.
    """

    low: int | float
    high: int | float
    open: Literal["", "low", "high"] = ""  # the end that is not in the range
    also: int | float | None = None

    def __contains__(self, value: int | float) -> bool:
        inside = self.low <= value <= self.high and value != {"low": self.low, "high": self.high}.get(self.open)
        return inside or value == self.also

    def __str__(self) -> str:
        text = {
            "": f"from {self.low:,} to {self.high:,}",
            "low": f"above {self.low:,}, at most {self.high:,}",
            "high": f"from {self.low:,}, below {self.high:,}",
        }[self.open]
        return text if self.also is None else f"{self.also:,} or {text}"


LARGEST_INT = 2**31 - 1  # steps are counted in int32 on devices

Count = Annotated[int, Range(1, LARGEST_INT)]
CountOrZero = Annotated[int, Range(0, LARGEST_INT)]
Size = Annotated[int, Range(1, 1 << 20)]  # widths, depths, heads, devices
SizeOrZero = Annotated[int, Range(0, 1 << 20)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Share = Annotated[float, Range(0, 1)]
PositiveShare = Annotated[float, Range(0, 1, open="low")]
Decay = Annotated[float, Range(0, 1, open="high")]
Weight = Annotated[float, Range(0, 1_000_000)]
Positive = Annotated[float, Range(0, 1_000_000_000, open="low")]
Rate = Annotated[float, Range(0, 10, open="low")]
Shift = Annotated[float, Range(0, 1000, open="low")]
GuidanceScale = Annotated[float, Range(0, 100)]
SolverSteps = Annotated[int, Range(1, 1000)]
Seconds = Annotated[float, Range(0, 86_400, open="low")]  # length of a clip
FrameRate = Annotated[int, Range(1, 240)]  # frames a second
PlaybackRate = Annotated[float, Range(1, 240)]  # frames a second of a file, which need not be whole
