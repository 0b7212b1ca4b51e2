"""The captions of a folder's videos, in the layouts that people have."""

import dataclasses
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any


@dataclasses.dataclass(frozen=True)
class Entry:
    """A folder's entry for one file: its caption, where that is written, and the group that it belongs to, if any."""

    caption: str
    origin: str
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A file, or a caption's place such as captions.jsonl:7, that does not enter the data set, and the reason."""

    file: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Captions:
    """The entries by file name, relative to the folder; what is no use; and what a file without an entry lacks."""

    entries: Mapping[str, Entry]
    rejections: list[Rejection]
    lacking: str


class Rejected(Exception):
    """Why one file or line is left out."""


# Where a caption is written, and a function that reads {file, caption, group} there or raises Rejected.
Row = tuple[str, Callable[[], Mapping[str, Any]]]


def gather(rows: Iterator[Row], lacking: str) -> Captions:
    """Checks rows {file, caption, group}: names stay in the folder, captions have words, none comes twice."""
    entries: dict[str, Entry] = {}
    rejections = []
    for origin, read in rows:
        try:
            name, entry = _entry(origin, read())
            if name in entries:
                raise Rejected(f"duplicate: {name!r} has a caption already")
            entries[name] = entry
        except Rejected as rejected:
            rejections.append(Rejection(origin, str(rejected)))
    return Captions(entries, rejections, lacking)


def _entry(origin: str, row: Mapping[str, Any]) -> tuple[str, Entry]:
    name, caption, group = row.get("file"), row.get("caption"), row.get("group")
    if name is None or caption is None:
        raise Rejected('it lacks "file" or "caption"')
    if not isinstance(name, str) or not isinstance(caption, str):
        raise Rejected('"file" and "caption" must be text')
    if not caption.strip():
        raise Rejected(f"the caption of {name!r} is empty")
    if not _is_text(name) or not _is_text(caption):
        raise Rejected("it holds half a surrogate pair, which is no text")
    if not has_words(caption):
        raise Rejected(f"the caption of {name!r} has no words: {caption!r} shows nothing")
    return _inside(name), Entry(caption.strip(), origin, "" if group is None else str(group))


def has_words(caption: str) -> bool:
    """True where a text has a character that shows: tokenizers drop control, format and combining characters alone."""
    return any(unicodedata.category(c)[0] not in "CZM" and c != "\ufffd" for c in caption)


def _inside(name: str) -> str:
    """The name in its plain form. Raises Rejected where it leads out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise Rejected(f"{name!r} leads out of the folder")
    return str(path)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
