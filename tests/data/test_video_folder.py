import json
import os

import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.prepare import folder_scan
from mobile_video_jax.data.prepare.folder_scan import Check
from tests.data.videos import greys, image_bytes, noise, write_captions, write_video


def scan(folder, min_frames):
    return folder_scan.scan(Check(folder, min_frames))


@pytest.fixture(scope="module")
def messy(tmp_path_factory):
    """A folder with everything that can be wrong, and three sound videos."""
    root = tmp_path_factory.mktemp("messy")
    folder = root / "videos"
    (folder / "sub").mkdir(parents=True)
    write_video(folder / "good.mp4", greys(12))
    write_video(folder / "sub" / "UPPER.webm", greys(12)).rename(folder / "sub" / "UPPER.WEBM")
    write_video(folder / "dance.gif", greys(12))
    write_video(folder / "short.mp4", greys(3))
    write_video(folder / "uncaptioned.mp4", greys(12))
    write_video(root / "outside.mp4", greys(12))
    whole = write_video(folder / "cut.mp4", noise(30), first_moov=True).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video\n" * 20)
    (folder / "notes.txt").write_text("hello")
    (folder / "folder.mp4").mkdir()
    os.symlink(root / "outside.mp4", folder / "link.mp4")
    os.symlink("good.mp4", folder / "inner.mp4")
    os.symlink("loop.mp4", folder / "loop.mp4")
    os.mkfifo(folder / "pipe.mp4")
    names = ["good.mp4", "./sub/UPPER.WEBM", "dance.gif", "short.mp4", "cut.mp4", "empty.mp4", "text.mp4", "notes.txt"]
    names += [
        "folder.mp4",
        "link.mp4",
        "inner.mp4",
        "loop.mp4",
        "pipe.mp4",
        "missing.mp4",
        "../outside.mp4",
        "sub/../good.mp4",
    ]
    names += [str(root / "outside.mp4"), "nul\0.mp4", "x" * 300 + ".mp4", "good.mp4", "./good.mp4"]
    write_captions(folder, *names)
    with (folder / "captions.jsonl").open("ab") as file:
        file.write(b"{not json\n\n")  # an empty line is no mistake
        file.write(b'{"file": "blank.mp4", "caption": "  "}\n{"file": "number.mp4", "caption": 3}\n')
        file.write(b'{"file": "none.mp4"}\n["a list"]\n"text"\n{"file": "\\ud800.mp4", "caption": "a"}\n')
        file.write(b'{"file": "latin.mp4", "caption": "caf\xe9"}\n' + b"[" * 100_000 + b"\n")
    return folder


def test_scan_takes_the_sound_and_names_the_rest(messy):
    clips, rejections = scan(messy, min_frames=5)
    assert {clip.id: clip.info.frames for clip in clips} == {
        "good.mp4": 12,
        "inner.mp4": 12,
        "sub/UPPER.WEBM": 12,
        "dance.gif": 12,
    }
    assert clips[0].caption == "a video called dance.gif"
    reasons = {rejection.file: rejection.reason for rejection in rejections}
    expected = {
        "cut.mp4": "truncated",
        "empty.mp4": "empty",
        "folder.mp4": "no such file",
        "link.mp4": "outside",
        "loop.mp4": "loop",
        "missing.mp4": "no such file",
        "notes.txt": "not one of",
        "nul\0.mp4": "null",
        "pipe.mp4": "no such file",
        "short.mp4": "too short: 3 frames of the 5",
        "text.mp4": "does not decode",
        "uncaptioned.mp4": "no caption",
        "x" * 300 + ".mp4": "too long",
        "captions.jsonl:15": "leads out",
        "captions.jsonl:16": "leads out",
        "captions.jsonl:17": "leads out",
        "captions.jsonl:20": "duplicate",
        "captions.jsonl:21": "duplicate",
        "captions.jsonl:22": "not JSON",
        "captions.jsonl:24": "empty",
        "captions.jsonl:25": "must be text",
        "captions.jsonl:26": "lacks",
        "captions.jsonl:27": "lacks",
        "captions.jsonl:28": "lacks",
        "captions.jsonl:29": "surrogate",
        "captions.jsonl:30": "not JSON",
        "captions.jsonl:31": "not JSON",
    }
    assert reasons.keys() == expected.keys()
    assert [name for name, words in expected.items() if words.lower() not in reasons[name].lower()] == []
    assert all("\n" not in reason for reason in reasons.values())


def test_scan_order_does_not_depend_on_the_file_system(messy):
    assert scan(messy, 5) == scan(messy, 5)
    clips, rejections = scan(messy, 5)
    assert [clip.id for clip in clips] == sorted(clip.id for clip in clips)
    assert [r.file for r in rejections] == sorted(r.file for r in rejections)


def test_a_file_above_two_gibibytes_is_refused_by_name_and_not_read(tmp_path):
    (tmp_path / "long.mp4").touch()
    os.truncate(tmp_path / "long.mp4", 3 * 2**30)  # takes no room: it has no blocks
    write_video(tmp_path / "short.mp4", greys(3))
    write_captions(tmp_path, "long.mp4", "short.mp4")
    clips, rejections = scan(tmp_path, 1)
    assert [clip.id for clip in clips] == ["short.mp4"]
    assert [(r.file, "it has 3.0 GiB" in r.reason) for r in rejections] == [("long.mp4", True)]


def test_folder_without_captions(tmp_path):
    write_video(tmp_path / "a.mp4", greys(3))
    with pytest.raises(UserError, match=r"captions.jsonl: write a line"):
        scan(tmp_path, 1)


def test_captions_with_a_byte_order_mark(tmp_path):
    write_video(tmp_path / "a.mp4", greys(3))
    line = json.dumps({"file": "a.mp4", "caption": "日本"}, ensure_ascii=False)
    (tmp_path / "captions.jsonl").write_text(line, encoding="utf-8-sig")
    clips, rejections = scan(tmp_path, 1)
    assert [clip.caption for clip in clips] == ["日本"]
    assert not rejections


def test_still_images_are_clips_for_those_who_ask(tmp_path):
    names = ["a.png", "b.jpg", "c.JPEG", "d.webp"]
    for name in names:
        suffix = "." + name[2:].lower().replace("jpeg", "jpg")
        (tmp_path / name).write_bytes(image_bytes(greys(1)[0], suffix))
    write_captions(tmp_path, *names)
    clips, rejections = scan(tmp_path, min_frames=1)
    assert [(clip.id, clip.info.frames) for clip in clips] == [(name, 1) for name in names]
    assert not rejections
    clips, rejections = scan(tmp_path, min_frames=2)
    assert not clips
    assert all("too short: 1 frames of the 2" in rejection.reason for rejection in rejections)
