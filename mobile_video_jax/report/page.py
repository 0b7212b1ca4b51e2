"""A report as one self-contained HTML file: facts, tables, curves, intervals and clips that play in step."""

import base64
import dataclasses
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.files import replacing
from mobile_video_jax.data.video.write import mp4_bytes

Values = Sequence[float | int] | np.ndarray
Series = tuple[Values, Values]

# Okabe and Ito's colours, which colour-blind readers tell apart; the dashes do the same for a grey print.
COLOURS, DASHES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"), ("-", "--", "-.", ":")
# Stand for the page's colours until the SVG is written: matplotlib has no word for a variable of the page.
INK, PAPER, GOOD, BAD = "#012345", "#012346", "#012347", "#012348"
PAGE_COLOURS = {INK: "currentColor", PAPER: "var(--page)", GOOD: "var(--good)", BAD: "var(--bad)"}
CLIP_WIDTH = 128
NUMBER = re.compile(r"[-−+]?[\d.,]+(e[-+]\d+)?( ?%)?|–")


@dataclasses.dataclass(frozen=True)
class Marked:
    """A table's cell that says better or worse; None is neither."""

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
        """Which columns hold numbers, and so are set to the right; a dash may stand among them."""
        return [all(NUMBER.fullmatch(digits(row[i])) for row in self.rows) for i in range(len(self.columns))]


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
        """How many screen pixels a side of one pixel takes, so that small clips can be watched."""
        return max(1, CLIP_WIDTH // self.frames.shape[2])


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


Block = Table | Curves | Intervals | Gallery


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


def write_report(path: Path, report: Report) -> None:
    """Writes the report as one HTML file that asks the network for nothing; all text in it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"curves": _curves, "intervals": _intervals, "video_uri": _video_uri, "digits": digits}
    html = environment.get_template("page.html.j2").render(report=report)
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def digits(cell: Cell) -> str:
    """Numbers to four digits, large ones to the unit; text as it is, and whether it is better or worse."""
    if isinstance(cell, Marked):
        return cell.text + {True: " better", False: " worse", None: ""}[cell.good]
    if isinstance(cell, str):
        return cell
    return f"{cell:,.4g}" if abs(cell) < 10_000 else f"{cell:,.0f}"


def _curves(curves: Curves) -> Markup:
    figure, axes = _axes(height=3.0)
    lines = zip(itertools.cycle(COLOURS), itertools.cycle(DASHES), curves.series.items(), strict=False)
    for colour, dash, (name, (x, y)) in lines:
        axes.plot(x, y, color=colour, linestyle=dash, label=name, linewidth=1.6)
    axes.set_yscale("log" if curves.log_y else "linear")
    axes.set_xlabel(curves.x_label, color=INK)
    axes.set_ylabel(curves.y_label, color=INK)
    axes.legend(frameon=False, labelcolor=INK)
    return _svg(figure)


def _intervals(intervals: Intervals) -> Markup:
    figure, axes = _axes(height=0.6 + 0.45 * len(intervals.entries))
    behind = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}  # hides the line at zero behind a label
    for i, entry in enumerate(intervals.entries):
        colour = INK if entry.good is None else GOOD if entry.good else BAD
        filled = colour if entry.low > 0 or entry.high < 0 else "none"
        axes.plot([entry.low, entry.high], [i, i], color=colour, linewidth=1.6)
        axes.plot(entry.value, i, "o", color=colour, markerfacecolor=filled)
        axes.text(0, i - 0.2, entry.label, transform=axes.get_yaxis_transform(), va="bottom", color=INK, bbox=behind)
    axes.axvline(0, color=INK, linewidth=1, linestyle="--")
    axes.set_ylim(len(intervals.entries) - 0.6, -0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return _svg(figure)


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.8, height), layout="constrained")
    axes = figure.add_subplot(facecolor="none")
    axes.tick_params(which="both", color=INK, labelcolor=INK)
    axes.grid(color=INK, alpha=0.15, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    return figure, axes


def _svg(figure: Figure) -> Markup:
    """The figure as inline SVG whose text and axes take the colours of the page, light or dark."""
    written = io.StringIO()
    bare = dict.fromkeys(["Date", "Format", "Type", "Creator"])
    figure.savefig(written, format="svg", transparent=True, metadata=bare)
    # HTML knows the SVG namespaces by itself: without them the page holds no web address at all.
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", written.getvalue())
    svg = re.sub("|".join(PAGE_COLOURS), lambda match: PAGE_COLOURS[match[0]], svg)
    return Markup(svg[svg.index("<svg") :])


def _video_uri(clip: ClipView, fps: float | int) -> str:
    return "data:video/mp4;base64," + base64.b64encode(mp4_bytes(clip.frames, float(fps), clip.scale)).decode()
