"""Content of a report page: facts, sections, and blocks such as tables, curves and galleries of clips."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from mobile_video_jax.core.arrays import Frames

Values = Sequence[float | int] | np.ndarray
Series = tuple[Values, Values]

CLIP_WIDTH = 128  # pixels of the screen that a small clip is enlarged to
NUMBER = re.compile(r"[-−+]?[\d.,]+(e[-+]\d+)?( ?%)?|–")


@dataclasses.dataclass(frozen=True)
class Marked:
    """A table's cell with a verdict, better or worse; None is neither."""

    text: str
    good: bool | None


Cell = str | int | float | Marked


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text or numbers under named columns; `highlight` lists the indices of the rows to stress."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    highlight: Sequence[int] = ()

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether it holds numbers, or dashes, alone: those are set to the right."""
        return [all(NUMBER.fullmatch(digits(row[i])) for row in self.rows) for i in range(len(self.columns))]

    def as_text(self) -> str:
        """The table for a terminal, in columns of equal width."""
        rows = [list(self.columns), *([digits(cell) for cell in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


@dataclasses.dataclass(frozen=True)
class Curves:
    """Lines in one set of axes: each series has its x values and its y values."""

    kind: ClassVar[str] = "curves"
    title: str
    series: Mapping[str, Series]
    x_label: str = "step"
    y_label: str = "loss"
    log_y: bool = False


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value with the ends of its interval; `good` colours it as better or worse, None leaves it plain."""

    label: str
    value: float
    low: float
    high: float
    good: bool | None = None


@dataclasses.dataclass(frozen=True)
class Intervals:
    """Values of one unit with their intervals below each other, and a line at zero. A dot is full away from zero."""

    kind: ClassVar[str] = "intervals"
    title: str
    entries: Sequence[Interval]


@dataclasses.dataclass(frozen=True)
class ClipView:
    """A clip of uint8 frames [t h w 3] with its caption; `good` marks it right or wrong, None leaves it unmarked."""

    frames: Frames
    label: str = ""
    good: bool | None = None

    @property
    def scale(self) -> int:
        """Screen pixels along a side of one pixel, so that small clips can be watched."""
        return max(1, CLIP_WIDTH // int(self.frames.shape[2]))


@dataclasses.dataclass(frozen=True)
class GalleryRow:
    """Clips that belong together, such as one prompt's samples, under one label."""

    label: str
    clips: Sequence[ClipView]


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Rows of clips that play in step at `fps` frames a second; large clips shrink until `columns` stand in a line."""

    kind: ClassVar[str] = "gallery"
    rows: Sequence[GalleryRow]
    caption: str = ""
    fps: float | int = 8
    columns: int = 2


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG file that was written before, with the caption that stands for it where it cannot be seen."""

    kind: ClassVar[str] = "picture"
    caption: str
    path: Path


Block = Table | Curves | Intervals | Gallery | Picture


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading, plain text (its line breaks are kept) and the blocks below it."""

    title: str
    text: str = ""
    blocks: Sequence[Block] = ()


@dataclasses.dataclass(frozen=True)
class Report:
    """A whole page: its title, one leading paragraph, facts as name and value, and the sections."""

    title: str
    lead: str
    facts: dict[str, str]
    sections: Sequence[Section]


def digits(cell: Cell) -> str:
    """Numbers to four digits, large ones to the unit; text as it is, and whether it is better or worse."""
    if isinstance(cell, Marked):
        return cell.text + {True: " better", False: " worse", None: ""}[cell.good]
    if isinstance(cell, str):
        return cell
    return f"{cell:,.4g}" if abs(cell) < 10_000 else f"{cell:,.0f}"
