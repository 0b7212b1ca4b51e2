"""The layouts that captions come in, and what is said of captions that are no use."""

import csv
import io
import json
import tarfile
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.prepare.captions import has_words
from mobile_video_jax.data.prepare.folder_scan import Check, Clip, Rejection, scan
from mobile_video_jax.data.prepare.prepare import prepare
from tests.data.videos import greys, write_video

CAPTIONS = {"a.mp4": "a dog runs", "sub/b.mp4": "two cats"}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two videos, without captions yet."""
    root = tmp_path / "videos"
    (root / "sub").mkdir(parents=True)
    for name in CAPTIONS:
        write_video(root / name, greys(3))
    return root


def scanned(folder: Path) -> tuple[list[Clip], list[Rejection]]:
    return scan(Check(folder, min_frames=1))


def reasons(folder: Path) -> dict[str, str]:
    return {rejection.file: rejection.reason for rejection in scanned(folder)[1]}


def write_table(path: Path, file: str, caption: str) -> None:
    rows = [{file: name, caption: text, "group": "one film"} for name, text in CAPTIONS.items()]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    with path.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_tar(path: Path, folder: Path, *, json_captions: bool) -> None:
    """The folder's videos and captions as a WebDataset shard; the videos themselves are removed."""
    with tarfile.open(path, "w") as tar:
        for name, caption in CAPTIONS.items():
            key = name.removesuffix(".mp4")
            tar.add(folder / name, name)
            text = json.dumps({"text": caption, "group": "one film"}) if json_captions else caption
            entry = tarfile.TarInfo(key + (".json" if json_captions else ".txt"))
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
            (folder / name).unlink()


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("metadata.csv", ("file", "caption")),
        ("metadata.csv", ("file_name", "text")),
        ("captions.csv", ("video", "prompt")),
        ("metadata.parquet", ("path", "caption")),
    ],
)
def test_a_table(folder, table, columns):
    write_table(folder / table, *columns)
    clips, rejections = scanned(folder)
    assert {clip.id: clip.caption for clip in clips} == CAPTIONS and not rejections
    assert {clip.group for clip in clips} == {"one film"}
    assert all(clip.origin.startswith(f"{table}:") for clip in clips)


def test_a_table_without_captions(folder):
    write_table(folder / "metadata.csv", "file", "label")
    with pytest.raises(
        UserError, match="metadata.csv has no column caption or text or prompt; it has file, label, group"
    ):
        scanned(folder)


def test_a_text_beside_each_video(folder):
    for name, caption in CAPTIONS.items():
        (folder / name).with_suffix(".txt").write_text(f"{caption}\n")
    write_video(folder / "c.mp4", greys(3))
    clips, _ = scanned(folder)
    assert {clip.id: clip.caption for clip in clips} == CAPTIONS
    assert reasons(folder) == {"c.mp4": "no caption: there is no text of its name beside it"}


@pytest.mark.parametrize("json_captions", [True, False])
def test_tars(folder, tmp_path, json_captions):
    originals = {name: (folder / name).read_bytes() for name in CAPTIONS}
    write_tar(folder / "shard-000.tar", folder, json_captions=json_captions)
    clips, rejections = scanned(folder)
    assert not rejections
    assert {clip.id: clip.caption for clip in clips} == {f"shard-000.tar/{k}": v for k, v in CAPTIONS.items()}
    prepare(str(folder), tmp_path / "out", validation=0.0, test=0.0)
    records = ClipSource.open(tmp_path / "out").records("train")
    assert [record["encoded"] for record in records] == list(originals.values())


def test_a_folder_without_captions_is_told_what_to_write(folder):
    with pytest.raises(
        UserError, match=r'has no captions.jsonl: write a line {"file".*, a .txt beside each, or metadata'
    ):
        scanned(folder)


@pytest.mark.parametrize("caption", ["\u200b\u200b", "\u00ad", "\u2060", "\ufeff", "\ufffd", "\x07", "\u0301"])
def test_captions_that_show_nothing_are_found_with_their_line(folder, caption):
    lines = [{"file": "a.mp4", "caption": caption}, {"file": "sub/b.mp4", "caption": "a dog"}]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert "has no words" in reasons(folder)["captions.jsonl:1"]
    assert [clip.origin for clip in scanned(folder)[0]] == ["captions.jsonl:2"]


def test_captions_in_any_script_have_words():
    assert all(map(has_words, ["日本", "كلب", "🐕", "a", "1", "!", "e\u0301"]))


def test_names_that_only_look_the_same_get_a_hint(folder):
    composed = unicodedata.normalize("NFC", "café.mp4")
    write_video(folder / unicodedata.normalize("NFD", composed), greys(3))
    names = [composed, "A.mp4", "sub\\b.mp4"]
    (folder / "captions.jsonl").write_text("\n".join(json.dumps({"file": n, "caption": "a"}) for n in names))
    reason_by_name = reasons(folder)
    for name, twin in zip(names, (unicodedata.normalize("NFD", composed), "a.mp4", "sub/b.mp4"), strict=True):
        assert reason_by_name[name].startswith(f"there is no such file, but {twin!r} looks the same")


def test_a_group_of_captions_jsonl_stays_together(tmp_path):
    root = tmp_path / "videos"
    root.mkdir()
    lines = []
    for i in range(12):
        write_video(root / f"{i}.mp4", greys(3))
        lines.append(json.dumps({"file": f"{i}.mp4", "caption": "a", "group": i // 3}))
    (root / "captions.jsonl").write_text("\n".join(lines))
    prepare(str(root), tmp_path / "out", validation=0.3, test=0.3)
    source = ClipSource.open(tmp_path / "out")
    homes = [
        {int(row.id.split(".")[0]) // 3 for row in source.rows(split)} for split in ("train", "validation", "test")
    ]
    assert sum(map(len, homes)) == 4 and all(homes)
