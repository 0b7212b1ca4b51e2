"""A folder prepared by shared work, here call by call in this process; test_beam_job.py lets Beam do it."""

import functools
import itertools
import json
import pickle
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import copy_folder, upload
from mobile_video_jax.data.dataset import open_split, read_manifest
from mobile_video_jax.data.prepare import beam_folder
from mobile_video_jax.data.prepare import prepare as preparation
from mobile_video_jax.data.prepare.prepare import Sharing, prepare
from tests.data.videos import noise, video_folder, write_video
from tests.object_store import new_folder

OPTIONS = {"validation": 0.2, "test": 0.2, "min_frames": 2}
CUT = 3  # clips of a shard


class Interrupted(Exception):
    pass


def in_process(function, keys):
    for key in keys:
        function(key)


def pickled(function, keys):
    """As it goes to another machine."""
    in_process(pickle.loads(pickle.dumps(function)), keys)


def records(out: Path) -> dict[str, list[dict]]:
    splits = read_manifest(out)["splits"]
    return {split: list(open_split(out, split)[0]) for split, size in splits.items() if size}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = video_folder(tmp_path_factory.mktemp("beam") / "videos", 12, frames=3)
    write_video(folder / "clip03.mp4", noise(20))  # larger than a shard
    (folder / "clip05.mp4").write_bytes(b"no video")
    write_video(folder / "uncaptioned.mp4", noise(2))
    return folder


@pytest.fixture(scope="module")
def local(videos) -> Path:
    prepare(str(videos), videos.parent / "local", **OPTIONS)
    return videos.parent / "local"


@pytest.fixture(scope="module")
def shard_bytes(videos) -> int:
    return CUT * (videos / "clip00.mp4").stat().st_size


def test_the_data_set_is_that_of_one_process(videos, local, tmp_path):
    out = tmp_path / "out"
    summary = prepare(str(videos), out, Sharing(in_process, 10**9), **OPTIONS)
    assert summary == {"accepted": 11, "rejected": 2, "shards": len(records(local)), "out": str(out)}
    files = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    assert files == {path.relative_to(local) for path in local.rglob("*") if path.is_file()}
    for name in (name for name in files if name.suffix in (".json", ".jsonl") and name.name != "manifest.json"):
        assert (out / name).read_bytes() == (local / name).read_bytes(), name
    assert records(out) == records(local)
    mine, theirs = (read_manifest(folder) for folder in (out, local))
    assert {**mine, "created": None} == {**theirs, "created": None}
    assert prepare(str(videos), out, Sharing(in_process, 10**9), **OPTIONS) == summary  # left as it is


def test_shards_are_bounded_and_keep_the_order(videos, local, shard_bytes, tmp_path):
    prepare(str(videos), tmp_path / "out", Sharing(in_process, shard_bytes), **OPTIONS)
    assert records(tmp_path / "out") == records(local)
    info = tfds.builder_from_directory(str(tmp_path / "out" / "video_folder" / "1.0.0")).info
    assert read_manifest(tmp_path / "out")["shards"] == sum(len(split.shard_lengths) for split in info.splits.values())
    for split, rows in records(local).items():
        sizes = iter([len(record["encoded"]) for record in rows])
        shards = [list(itertools.islice(sizes, length)) for length in info.splits[split].shard_lengths]
        assert all(len(shard) == 1 or sum(shard) <= shard_bytes for shard in shards)
        assert all(sum(shard) + after[0] > shard_bytes for shard, after in itertools.pairwise(shards))
    assert max(info.splits["train"].shard_lengths) == CUT


def test_a_stopped_job_goes_on_and_keeps_what_is_finished(videos, local, shard_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(beam_folder, "FILES_A_BLOCK", 4)
    out, done = tmp_path / "out", []

    def counted(stop_after, function, keys):
        for key in keys:
            if len(done) == stop_after:
                raise Interrupted
            function(key)
            done.append(key)

    for stop_after in (2, 5):  # among the checks, among the shards
        with pytest.raises(Interrupted):
            prepare(str(videos), out, Sharing(functools.partial(counted, stop_after), shard_bytes), **OPTIONS)
        assert not (out / "manifest.json").exists()
        with pytest.raises(UserError, match="is no data set"):
            open_split(out, "train")
    with pytest.raises(UserError, match="is not finished: go on with the --runner"):
        prepare(str(videos), out, **OPTIONS)
    for sharing, options in ((shard_bytes + 1, OPTIONS), (shard_bytes, {**OPTIONS, "test": 0.3})):
        with pytest.raises(UserError, match="begun with other files or options: remove it"):
            prepare(str(videos), out, Sharing(in_process, sharing), **options)
    finished = {path: path.stat().st_mtime_ns for path in out.rglob("*.array_record*")}
    assert len(finished) == 2
    (next(iter(finished)).parent / ".cut.array_record.12.partial").write_text("of a worker that was killed")
    last = Sharing(functools.partial(counted, None), shard_bytes)
    prepare(str(videos), out, last, **OPTIONS, max_rejected=0.4)  # may change on the way
    assert len(done) == len(set(done)) == 3 + read_manifest(out)["shards"]
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert records(out) == records(local)
    assert not (out / "unfinished").exists() and not list(out.rglob("*.partial"))


def test_a_job_that_stops_before_its_manifest_goes_on(videos, local, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(preparation, "_manifest", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(str(videos), out, Sharing(in_process, 10**9), **OPTIONS)
    monkeypatch.undo()
    prepare(str(videos), out, Sharing(lambda *_: pytest.fail("nothing is left to do"), 10**9), **OPTIONS)
    assert records(out) == records(local)


def test_too_many_rejected(videos, tmp_path):
    with pytest.raises(UserError, match=r"2 of 13 .*out.rejected.jsonl"):
        prepare(str(videos), tmp_path / "out", Sharing(in_process, 10**9), **OPTIONS, max_rejected=0.1)
    reasons = (tmp_path / "out.rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in reasons] == ["clip05.mp4", "uncaptioned.mp4"]
    assert not list(tmp_path.rglob("*.array_record*"))


def test_embedded_sets_are_drawn_by_one_process(tmp_path):
    with pytest.raises(UserError, match="moving_shapes is made by one process: leave out --runner"):
        prepare("moving_shapes", tmp_path / "out", Sharing(in_process, 10**9))
    assert not list(tmp_path.iterdir())


def test_folders_of_an_object_store(videos, local):
    bucket = new_folder()
    upload(videos, bucket / "videos")
    prepare(str(bucket / "videos"), bucket / "out", Sharing(pickled, 10**9), **OPTIONS)
    copy_folder(bucket / "out", videos.parent / "copy")
    assert records(videos.parent / "copy") == records(local)
    assert (bucket / "out" / "rejected.jsonl").read_text() == (local / "rejected.jsonl").read_text()
    assert not (bucket / "out" / "unfinished").exists()
    write_video(videos.parent / "new.mp4", noise(3))
    (bucket / "videos" / "clip00.mp4").write_bytes((videos.parent / "new.mp4").read_bytes())
    with pytest.raises(UserError, match="made from older files"):
        prepare(str(bucket / "videos"), bucket / "out", Sharing(pickled, 10**9), **OPTIONS)
