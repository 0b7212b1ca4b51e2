"""Layouts of a folder's captions: captions.jsonl, a table, a text beside each video, or WebDataset tars."""

import csv
import functools
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.parquet

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.prepare.captions import Captions, Rejected, Row, gather
from mobile_video_jax.data.prepare.members import TAR, members, read
from mobile_video_jax.data.video.container import EXTENSIONS

CAPTIONS = "captions.jsonl"
TABLES = tuple(f"{stem}.{kind}" for stem in ("captions", "metadata") for kind in ("csv", "parquet"))
# Names that a table's columns, and a tar's JSON, have elsewhere.
COLUMNS = {
    "file": ("file", "file_name", "video", "path"),
    "caption": ("caption", "text", "prompt"),
    "group": ("group",),
}
TEXT = ".txt"


def read_captions(folder: Path, names: Mapping[str, Any]) -> Captions:
    """The captions of a folder that holds the files `names`. Raises UserError where it has none in any layout."""
    if CAPTIONS in names:
        return gather(_json_lines(folder), f"{CAPTIONS} has no line for it")
    for table in TABLES:
        if table in names:
            rows = _csv_rows if table.endswith("csv") else _parquet_rows
            return gather(rows(folder, table), f"{table} has no row for it")
    if any(name.endswith(TAR) for name in names):
        return gather(_tar_rows(folder, names), "its tar holds no text of its name")
    if texts := [name for name in names if name.endswith(TEXT) and _beside(name, names)]:
        return gather(_text_rows(folder, texts, names), "there is no text of its name beside it")
    raise UserError(
        f'{folder} has no {CAPTIONS}: write a line {{"file": "a.mp4", "caption": "what it shows"}} for each video, '
        f"a {TEXT} beside each, or metadata.csv with columns file and caption"
    )


def is_video(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in EXTENSIONS


def holds_data(name: str) -> bool:
    """True where a file is a video, holds some, or says something of one."""
    return is_video(name) or name == CAPTIONS or name in TABLES or name.endswith((TAR, TEXT))


def _json_lines(folder: Path) -> Iterator[Row]:
    for number, line in enumerate((folder / CAPTIONS).read_bytes().splitlines(), start=1):
        if line.strip():
            yield f"{CAPTIONS}:{number}", functools.partial(_parsed, line)


def _csv_rows(folder: Path, table: str) -> Iterator[Row]:
    with io.StringIO((folder / table).read_text("utf-8-sig"), newline="") as lines:
        reader = csv.DictReader(lines)
        columns = _columns(folder / table, reader.fieldnames or ())
        for row in reader:
            yield f"{table}:{reader.line_num}", functools.partial(_renamed, row, columns)


def _parquet_rows(folder: Path, table: str) -> Iterator[Row]:
    rows = pyarrow.parquet.read_table(io.BytesIO((folder / table).read_bytes()))
    columns = _columns(folder / table, rows.column_names)
    for number, row in enumerate(rows.to_pylist(), start=1):
        yield f"{table}:{number}", functools.partial(_renamed, row, columns)


def _text_rows(folder: Path, texts: list[str], names: Mapping[str, Any]) -> Iterator[Row]:
    for text in sorted(texts):
        for name in _beside(text, names):
            yield text, functools.partial(_text_row, name, folder, text)


def _tar_rows(folder: Path, names: Mapping[str, Any]) -> Iterator[Row]:
    """A row for each video of each tar: members share a key, the name up to the first dot, as WebDataset has it."""
    for tar in sorted(name for name in names if name.endswith(TAR)):
        parts: dict[str, dict[str, str]] = {}
        for member in members(folder / tar):
            parent, _, base = member.rpartition("/")
            key, _, kind = base.partition(".")
            parts.setdefault(f"{parent}/{key}", {})[f".{kind.lower()}"] = member
        for kinds in parts.values():
            for kind, member in kinds.items():
                if kind in EXTENSIONS:
                    yield f"{tar}/{member}", functools.partial(_tar_row, folder, tar, member, kinds)


def _tar_row(folder: Path, tar: str, member: str, kinds: Mapping[str, str]) -> Mapping[str, Any]:
    name = f"{tar}/{member}"
    row: dict[str, Any] = {}
    if ".json" in kinds:
        row = _parsed(read(folder, f"{tar}/{kinds['.json']}"))
        row = _renamed(row, {field: key for field, keys in COLUMNS.items() for key in keys if key in row})
    if TEXT in kinds:
        row |= _text_row(name, folder, f"{tar}/{kinds[TEXT]}")
    return row | {"file": name}


def _text_row(name: str, folder: Path, text: str) -> dict[str, Any]:
    try:
        return {"file": name, "caption": read(folder, text).decode("utf-8-sig")}
    except UnicodeDecodeError:
        raise Rejected("it is not UTF-8") from None


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise Rejected("it is not JSON") from None
    return row if isinstance(row, dict) else {}


def _renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    return {field: row[column] for field, column in columns.items()}


def _columns(table: Path, names: Any) -> dict[str, str]:
    """The column of each field. Raises UserError where the table lacks files or captions."""
    columns = {field: key for field, keys in COLUMNS.items() for key in reversed(keys) if key in names}
    for field in ("file", "caption"):
        if field not in columns:
            raise UserError(f"{table} has no column {' or '.join(COLUMNS[field])}; it has {', '.join(names) or 'none'}")
    return columns


def _beside(text: str, names: Mapping[str, Any]) -> list[str]:
    """The videos whose name differs from a text's in the ending alone."""
    stem = text.removesuffix(TEXT)
    return [stem + end for kind in EXTENSIONS for end in (kind, kind.upper()) if stem + end in names]
