"""The report page is self-contained, complete and escaped."""

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest

from mobile_video_jax.report.blocks import (
    ClipView,
    Curves,
    Gallery,
    GalleryRow,
    Interval,
    Intervals,
    Marked,
    Picture,
    Report,
    Section,
    Table,
)
from mobile_video_jax.report.page import write_report


class Page(HTMLParser):
    """Collects the tags of a page with their attributes, and its text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def clip(seed: int, frames: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 16, 32, 3), dtype=np.uint8)


REPORT = Report(
    title="A <b>bold</b> title",
    lead="Lead & summary",
    facts={"Frames": "17", "Device <x>": "CPU"},
    sections=[
        Section(
            "Numbers",
            "Two lines\nof text",
            [
                Table(
                    ["stage", "PSNR", "change"],
                    [["base", 31.23456, "–"], ["distilled", 12345, Marked("+0.3", True)]],
                    "Fidelity <script>",
                    highlight=[1],
                ),
                Curves(
                    "Loss", {"train <i>": ([1, 2, 3], [3.0, 2.0, 1.0]), "held out": ([1, 3], [3.5, 1.5])}, log_y=True
                ),
                Intervals("Change", [Interval("up", 2.0, 1.0, 3.0, True), Interval("open <u>", 0.5, -1.0, 2.0)]),
            ],
        ),
        Section(
            "Clips",
            blocks=[
                Gallery(
                    [
                        GalleryRow(
                            "a 'red' square & <img src=x>",
                            [ClipView(clip(0), "one", True), ClipView(clip(1), "two", False)],
                        ),
                        GalleryRow("plain", [ClipView(clip(2), "three")]),
                    ],
                    "Samples",
                )
            ],
        ),
    ],
)


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "folder" / "report.html"
    write_report(path, REPORT)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_the_page_holds_no_web_address(html):
    assert not re.search(r"https?:|@import|url\((?!#)", html)
    for tag, attributes in Page(html).tags:
        for name in ("src", "href", "srcset", "data", "poster"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, attributes)


def test_every_clip_is_there_and_decodes(html):
    videos = Page(html).all("video")
    assert len(videos) == 3
    for video in videos:
        head, data = video["src"].split(",", 1)
        assert head == "data:video/mp4;base64"
        assert {"autoplay", "loop", "muted", "playsinline"} <= set(video)
        with av.open(io.BytesIO(base64.b64decode(data, validate=True))) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == 5
        assert frames[0].shape == (64, 128, 3)
        assert (video["width"], video["height"]) == ("128", "64")


def test_tables_and_curves_are_there(html):
    page = Page(html)
    assert len(page.all("table")) == 1
    assert len(page.all("svg")) == 2
    assert {"stage", "PSNR", "base", "31.23", "distilled", "12,345", "Loss", "Samples", "three"} <= set(page.text)
    assert {"+0.3 better", "Change"} <= set(page.text)
    assert sum(row.get("class") == "highlight" for row in page.all("tr")) == 1


def test_right_and_wrong_samples_are_marked_in_words_too(html):
    marks = [attributes for attributes in Page(html).all("b") if attributes.get("role") == "img"]
    assert [mark["aria-label"] for mark in marks] == ["right", "wrong"]


def test_numbers_stand_to_the_right_and_words_to_the_left(html):
    cells = [cell.get("class") for cell in Page(html).all("th")]
    assert cells == [None, "number", None]  # a verdict is a word


def test_intervals_take_the_colours_of_the_page_and_tell_zero(html):
    drawing = re.findall(r"<svg.*?</svg>", html, flags=re.S)[1]
    assert "#01234" not in html and "currentColor" in drawing
    dots = set(re.findall(r'<use [^>]*style="([^"]*)"', drawing))
    # Full where the interval excludes zero, empty where it does not.
    assert {"fill: var(--good); stroke: var(--good)", "fill-opacity: 0; stroke: currentColor"} <= dots


def test_text_is_escaped(html):
    page = Page(html)
    assert {"A <b>bold</b> title", "Lead & summary", "Fidelity <script>", "a 'red' square & <img src=x>"} <= set(
        page.text
    )
    assert "Device <x>" in page.text
    assert not page.all("img") and not page.all("i") and len(page.all("script")) == 1


def test_the_same_clip_and_table_give_the_same_page_but_for_svg_identifiers(html, tmp_path):
    write_report(tmp_path / "again.html", REPORT)
    again = (tmp_path / "again.html").read_text(encoding="utf-8")
    assert re.sub(r"<svg.*?</svg>", "", again, flags=re.S) == re.sub(r"<svg.*?</svg>", "", html, flags=re.S)


def test_a_picture_is_embedded_and_named_by_its_caption(tmp_path):
    (tmp_path / "plot.png").write_bytes(b"any bytes")
    write_report(
        tmp_path / "page.html", Report("", "", {}, [Section("", "", [Picture("A & B", tmp_path / "plot.png")])])
    )
    [image] = Page((tmp_path / "page.html").read_text()).all("img")
    head, data = image["src"].split(",", 1)
    assert head == "data:image/png;base64" and base64.b64decode(data) == b"any bytes" and image["alt"] == "A & B"


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
CLIPS = """<script>
addEventListener("load", () => {
  const clips = [...document.querySelectorAll("video")], page = document.documentElement;
  const playable = clips.filter(clip => clip.readyState >= 2 && !clip.error);
  document.title = `${playable.length} of ${clips.length}, ${page.scrollWidth - innerWidth} too wide`;
});
</script></body>"""
HINTS = """<script>
const hinted = () => [...document.querySelectorAll(".scroll")].map(
  box => box.classList.contains("more") && getComputedStyle(box.nextElementSibling).display == "block");
addEventListener("load", () => setTimeout(() => {
  const before = hinted(), page = document.documentElement;
  for (const box of document.querySelectorAll(".scroll")) {
    box.scrollLeft = box.scrollWidth;
    box.dispatchEvent(new Event("scroll"));  // without a screen there is no frame at which chromium would
  }
  setTimeout(() => {
    document.title = `${before} then ${hinted()}, ${page.scrollWidth - innerWidth} too wide`;
  }, 200);
}, 200));
</script></body>"""


def browse(html: str, probe: str, folder: Path) -> tuple[str, str]:
    """The title that the probe gives a page in a window of 500 pixels, the least that chromium has, and complaints."""
    page = folder / "page.html"
    page.write_text(html.replace("</body>", probe))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += [f"--user-data-dir={folder}/profile", "--enable-logging=stderr", "--window-size=500,900"]
    command = [BROWSER, *flags, "--virtual-time-budget=3000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = re.search("<title>(.*)</title>", done.stdout)
    assert title, done.stderr
    return title[1], done.stderr


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium")
def test_a_browser_plays_every_clip_and_has_nothing_to_complain_of(html, tmp_path):
    title, complaints = browse(html, CLIPS, tmp_path)
    assert re.fullmatch(r"3 of 3, (-\d+|0) too wide", title)
    assert "CONSOLE" not in complaints


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium")
def test_a_table_wider_than_the_page_scrolls_and_says_so_until_its_end(tmp_path):
    narrow, wide = Table(["a", "b"], [[1, 2]]), Table([f"a long heading {i}" for i in range(12)], [range(12)])
    write_report(tmp_path / "wide.html", Report("", "", {}, [Section("", "", [wide, narrow])]))
    title, _ = browse((tmp_path / "wide.html").read_text(), HINTS, tmp_path)
    assert re.fullmatch(r"true,false then false,false, (-\d+|0) too wide", title)
