"""A metric: the key of its results, what people read of it, and which way is better."""

import dataclasses

SHARE = "%"


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score of clips.

    `key` names it in report.json, scores.json and table.csv; people read `name`, `unit` and, below a table, `meaning`.
    The unit "%" is that of shares: each clip is right (1) or wrong (0).
    """

    key: str
    name: str
    meaning: str = ""
    unit: str = ""
    more_is_better: bool | None = None  # None: neither way, as of how much moves
    frames: int = 1  # the fewest that a clip needs

    @property
    def title(self) -> str:
        """The name with its unit."""
        return f"{self.name} ({self.unit})" if self.unit not in ("", SHARE) else self.name

    def text(self, value: float | None, sign: str = "") -> str:
        """A value to four digits, a share in percent; a dash for None. `sign` "+" signs positive values as well."""
        if value is None:
            return "–"
        return f"{value:{sign}.1%}" if self.unit == SHARE else f"{value:{sign},.4g}"

    def interval(self, low: float | None, high: float | None) -> str:
        """The ends of an interval; a dash where there is none."""
        return "–" if low is None else f"{self.text(low)} to {self.text(high)}"

    def better(self, low: float, high: float) -> bool | None:
        """True where a difference within [low, high] is for the better; None where that is not known."""
        if self.more_is_better is None or low <= 0 <= high:
            return None
        return (low > 0) == self.more_is_better
