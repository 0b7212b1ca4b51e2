"""A report as one self-contained HTML file: facts, tables, curves and clips that play in step."""

import base64
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import jinja2
import numpy as np
from cycler import cycler
from markupsafe import Markup
from matplotlib.figure import Figure

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.files import replacing
from mobile_video_jax.data.video_file import mp4_bytes

Cell = str | int | float
Values = Sequence[float | int] | np.ndarray
Series = tuple[Values, Values]

# Okabe and Ito's colours, which colour-blind readers tell apart; the dashes do the same for a grey print.
LINES = cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7"], linestyle=["-", "--", "-.", ":"])
# Stands for the page's text colour until the SVG is written: matplotlib has no word for currentColor.
INK = "#012345"
CLIP_WIDTH = 128


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
        """Which columns hold numbers, and so are set to the right; text such as a dash may stand among them."""
        return [any(not isinstance(row[i], str) for row in self.rows) for i in range(len(self.columns))]


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
    """Rows of clips that play in step at `fps` frames a second."""

    kind: ClassVar[str] = "gallery"
    rows: Sequence[GalleryRow]
    caption: str = ""
    fps: float | int = 8


Block = Table | Curves | Gallery


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
    environment.filters |= {"svg": _svg, "video_uri": _video_uri, "digits": _digits}
    html = environment.get_template("report.html.j2").render(report=report)
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _svg(curves: Curves) -> Markup:
    """The curves as inline SVG whose text and axes take the colour of the page's text, light or dark."""
    figure = Figure(figsize=(4.8, 3.0), layout="constrained")
    axes = figure.add_subplot(facecolor="none")
    axes.set_prop_cycle(LINES)
    for name, (x, y) in curves.series.items():
        axes.plot(x, y, label=name, linewidth=1.6)
    axes.set_yscale("log" if curves.log_y else "linear")
    axes.set_xlabel(curves.x_label, color=INK)
    axes.set_ylabel(curves.y_label, color=INK)
    axes.tick_params(which="both", color=INK, labelcolor=INK)
    axes.grid(color=INK, alpha=0.15, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.legend(frameon=False, labelcolor=INK)
    written = io.StringIO()
    bare = dict.fromkeys(["Date", "Format", "Type", "Creator"])
    figure.savefig(written, format="svg", transparent=True, metadata=bare)
    # HTML knows the SVG namespaces by itself: without them the page holds no web address at all.
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", written.getvalue())
    return Markup(svg[svg.index("<svg") :].replace(INK, "currentColor"))


def _video_uri(clip: ClipView, fps: float | int) -> str:
    return "data:video/mp4;base64," + base64.b64encode(mp4_bytes(clip.frames, float(fps), clip.scale)).decode()


def _digits(cell: Cell) -> str:
    """Numbers to four digits, large ones to the unit; text as it is."""
    if isinstance(cell, str):
        return cell
    return f"{cell:,.4g}" if abs(cell) < 10_000 else f"{cell:,.0f}"
