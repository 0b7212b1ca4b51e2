"""A report as one self-contained HTML file."""

import base64
import io
import itertools
import re
from pathlib import Path

import jinja2
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mobile_video_jax.core.files import replacing
from mobile_video_jax.data.video.write import mp4_bytes
from mobile_video_jax.report.blocks import ClipView, Curves, Intervals, Picture, Report, digits

# Okabe and Ito's colours, which colour-blind readers tell apart; the dashes do the same for a grey print.
COLOURS, DASHES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"), ("-", "--", "-.", ":")
# Stand for the page's colours until the SVG is written: matplotlib has no word for a variable of the page.
INK, PAPER, GOOD, BAD = "#012345", "#012346", "#012347", "#012348"
PAGE_COLOURS = {INK: "currentColor", PAPER: "var(--page)", GOOD: "var(--good)", BAD: "var(--bad)"}


def write_report(path: Path, report: Report) -> None:
    """Writes the report as one HTML file that asks the network for nothing; all text in it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"curves": _curves, "intervals": _intervals, "digits": digits}
    environment.filters |= {"video_uri": _video_uri, "picture_uri": _picture_uri}
    html = environment.get_template("page.html.j2").render(report=report)
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


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


def _picture_uri(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.path.read_bytes()).decode()
