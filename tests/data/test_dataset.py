import errno
import json
import subprocess
import sys

import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.dataset import open_split, read_manifest
from mobile_video_jax.data.prepare import sources
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.data.shapes.world import World
from tests.data.videos import greys, video_folder, write_captions, write_video

SIZES = {"train": 12, "validation": 4, "test": 0}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    out = tmp_path_factory.mktemp("shapes") / "out"
    prepare("moving_shapes", out, sizes=SIZES, clip=ClipShape(5, 32, 32))
    return out


@pytest.fixture
def videos(tmp_path):
    return video_folder(tmp_path / "videos", 8)


def test_folder_of_videos_becomes_a_data_set(tmp_path, videos):
    (videos / "broken.mp4").write_text("no video")
    out = tmp_path / "out"
    summary = prepare(str(videos), out, validation=0.3, test=0.3)
    assert summary == {"accepted": 8, "rejected": 1, "shards": 3, "out": str(out)}
    manifest = read_manifest(out)
    assert manifest["name"] == "video_folder"
    assert manifest["clip"] is None
    assert manifest["world"] is None
    assert manifest["shortest"] == 12
    assert [json.loads(line)["file"] for line in (out / "rejected.jsonl").read_text().splitlines()] == ["broken.mp4"]
    records = {}
    for split, size in manifest["splits"].items():
        source, _ = open_split(out, split)
        assert len(source) == size
        records |= {record["id"].decode(): record for record in source}
    assert sorted(records) == [f"clip{number:02}.mp4" for number in range(8)]
    record = records["clip03.mp4"]
    assert record["encoded"] == (videos / "clip03.mp4").read_bytes()
    assert record["caption"].decode() == "a video called clip03.mp4"
    assert (record["frames"], record["height"], record["width"], record["fps"]) == (12, 24, 32, 10)
    assert [path.name for path in tmp_path.iterdir() if path != videos] == ["out"]


def test_few_clips_leave_splits_empty_and_the_manifest_says_so(tmp_path):
    prepare(str(video_folder(tmp_path / "videos", 1)), tmp_path / "out", validation=0.4, test=0.4)
    manifest = read_manifest(tmp_path / "out")
    assert manifest["splits"] == {"train": 1, "validation": 0, "test": 0}
    assert len(manifest["notes"]) == 2
    with pytest.raises(UserError, match="no clips in validation"):
        open_split(tmp_path / "out", "validation")


def test_shapes_keep_their_world_and_clip(tmp_path):
    world = World(counts=(1, 2), colours=("red", "blue"))
    prepare("moving_shapes", tmp_path / "out", sizes=SIZES, clip=ClipShape(3, 32, 40), world=world, seed=3)
    manifest = read_manifest(tmp_path / "out")
    assert manifest["clip"] == "3x32x40"
    assert manifest["splits"] == SIZES
    assert from_mapping(World, manifest["world"]) == world
    assert open_split(tmp_path / "out", "train")[0][0]["video"].shape == (3, 32, 40, 3)


@pytest.mark.slow
def test_sample_clips_hold_out_other_times(tmp_path):
    from mobile_video_jax.data.prepare.sample_clips import SHOTS

    assert prepare("sample_clips", tmp_path / "out")["accepted"] == len(SHOTS)
    assert read_manifest(tmp_path / "out")["splits"] == {"train": 7, "validation": 4, "test": 4}
    times = {}
    for shot in SHOTS:
        scene = shot.file.replace("distorted", "pristine")  # the same scene
        for frame in range(shot.first, shot.stop):
            assert times.setdefault((scene, frame), shot.split) == shot.split
        assert shot.stop - shot.first >= 17
    source, _ = open_split(tmp_path / "out", "test")
    frames = {record["id"].decode(): int(record["frames"]) for record in source}
    assert frames["bigbuckbunny_112.mp4"] == 20


def test_preparing_again_leaves_the_data_set_as_it_is(tmp_path, videos):
    out = tmp_path / "out"
    first = prepare(str(videos), out)
    created = (out / "manifest.json").stat().st_mtime_ns
    assert prepare(str(videos), out) == first
    assert (out / "manifest.json").stat().st_mtime_ns == created
    with pytest.raises(UserError, match="other options"):
        prepare(str(videos), out, min_frames=5)
    with pytest.raises(UserError, match="another source"):
        prepare(str(video_folder(tmp_path / "others", 2)), out)
    write_video(videos / "new.mp4", greys(4))
    with pytest.raises(UserError, match="older files"):
        prepare(str(videos), out)


def test_too_many_rejected(tmp_path, videos):
    write_captions(videos, "clip00.mp4", "missing.mp4")  # seven more have no caption now
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"8 of 9 .*out.rejected.jsonl"):
        prepare(str(videos), out)
    assert not out.exists()
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "out.rejected.jsonl").read_text().splitlines()]
    assert len(reasons) == 8
    assert prepare(str(videos), out, max_rejected=0.95)["rejected"] == 8
    assert not (tmp_path / "out.rejected.jsonl").exists()
    write_captions(videos, "missing.mp4")
    with pytest.raises(UserError, match="9 of 9"):
        prepare(str(videos), tmp_path / "none", max_rejected=1.0)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("nowhere", {}, "neither a folder nor one of moving_shapes, sample_clips"),
        ("moving_shapes", {"min_frames": 3}, "no option min_frames; it has clip, seed, sizes, world"),
        ("sample_clips", {"seed": 3}, "no option seed; it has none"),
        ("moving_shapes", {"clip": ClipShape(5, 16, 16), "sizes": SIZES}, "too small"),
        ("moving_shapes", {"sizes": {"train": 0}}, "at least one"),
        (".", {"test": 3.0}, "share between 0 and 1"),
        (".", {"test": 0.5, "validation": 0.5}, "leave a share for train"),
        (".", {}, "no captions.jsonl"),
    ],
)
def test_bad_options_and_sources(tmp_path, monkeypatch, source, options, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        prepare(source, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_out_that_holds_something_else(tmp_path, videos):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name in ("file", "full"):
        with pytest.raises(UserError, match="is no data set: name another --out"):
            prepare(str(videos), tmp_path / name)
    assert (tmp_path / "full" / "thesis.tex").read_text() == "mine"
    prepare(str(videos), tmp_path / "empty")
    assert read_manifest(tmp_path / "empty")["accepted"] == 8


def test_a_build_that_fails_leaves_nothing(tmp_path, videos, monkeypatch):
    def full_disk(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources, "split_clips", full_disk)
    with pytest.raises(OSError, match="No space"):
        prepare(str(videos), tmp_path / "out")
    assert list(tmp_path.iterdir()) == [videos]


def test_folders_that_cannot_be_opened(tmp_path, shapes):
    with pytest.raises(UserError, match="is no data set: make one"):
        open_split(tmp_path / "nothing", "train")
    with pytest.raises(UserError, match="is no data set"):
        open_split(tmp_path, "train")
    with pytest.raises(UserError, match="no split 'dev'; it has train, validation, test"):
        open_split(shapes, "dev")
    (tmp_path / "manifest.json").write_text('{"kind": "vid')
    with pytest.raises(UserError, match="damaged"):
        open_split(tmp_path, "train")
    (tmp_path / "manifest.json").write_text('{"kind": "latents"}')
    with pytest.raises(UserError, match="holds no videos"):
        open_split(tmp_path, "train")


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_shards_are_found_at_once(tmp_path, videos, damage):
    prepare(str(videos), tmp_path / "out")
    (shard,) = (tmp_path / "out").rglob("*train.array_record*")
    if damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-100])
    else:
        shard.unlink()
    with pytest.raises(UserError, match=r"train.array_record.* is (damaged|missing).* remove"):
        open_split(tmp_path / "out", "train")


def test_tensorflow_is_never_imported(shapes):
    code = (
        "import sys; from pathlib import Path; from mobile_video_jax.data.pipeline import *;"
        f"source = ClipSource.open(Path({str(shapes)!r}));"
        f"print(next(iter(captioned_clips(source, 'train', ClipShape(5, 32, 32))))['caption']);"
        "print('tensorflow' in sys.modules, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False False"
