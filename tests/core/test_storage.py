"""Paths into an object store, and files that appear there whole or not at all."""

from pathlib import Path

import fsspec
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import append, filling, replacing, write_json
from mobile_video_jax.core.storage import ObjectPath, copy_folder, local_path, storage_path
from tests.object_store import new_folder

FILES = ("manifest.json", "a/0.bin", "a/b/1.bin", "z/2.bin")


@pytest.fixture
def folder() -> Path:
    return new_folder()


def tree(folder: Path) -> dict[str, str]:
    """The files below a local folder and their texts."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_plain_text_is_a_plain_path():
    assert type(storage_path("runs/a")) is type(Path())
    assert storage_path("/data/gs/clips") == local_path("/data/gs/clips") == Path("/data/gs/clips")
    with pytest.raises(UserError, match="gs://clips/report: name a path of this machine here"):
        local_path("gs://clips/report")


def test_a_path_in_a_bucket_has_the_methods_of_a_path(folder):
    assert isinstance(folder, Path) and not folder.exists() and list(folder.iterdir()) == []
    write_json(folder / "a" / "b.json", {"x": 1})
    assert (folder / "a").is_dir() and (folder / "a" / "b.json").is_file()
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert str((folder / "a").absolute()) == f"{folder}/a" and isinstance((folder / "a").parent, ObjectPath)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gs://nowhere/run", "gs://nowhere cannot be read .*: check its name and your credentials"),
        ("s3://clips/run", "s3://clips/run: name a local path or gs://BUCKET/NAME"),
    ],
)
def test_what_cannot_be_reached_is_named(folder, text, message):
    with pytest.raises(UserError, match=message):
        storage_path(text)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("fsspec.filesystem", lambda scheme: __import__("no_such_package"))
    with pytest.raises(UserError, match=r"gs://clips/run needs gcsfs: pip install -e '.\[gcs\]'"):
        storage_path("gs://clips/run")


@pytest.mark.parametrize("remote", [False, True])
def test_a_file_is_replaced_whole_or_not_at_all(remote, tmp_path):
    path = (new_folder() if remote else tmp_path) / "run.json"
    write_json(path, 1)
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "1\n" and [entry.name for entry in path.parent.iterdir()] == ["run.json"]


def test_a_folder_comes_with_its_manifest_last(folder, tmp_path):
    with replacing(folder / "set") as temporary:
        for name in FILES:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_text(name)
    store = fsspec.filesystem("gs")
    written = {name: int(store.info(str(folder / "set" / name))["generation"]) for name in FILES}  # nanoseconds
    assert written["a/b/1.bin"] < min(written["a/0.bin"], written["z/2.bin"])
    assert max(written.values()) == written["manifest.json"]
    copy_folder(folder / "set", tmp_path / "copy")
    assert tree(tmp_path / "copy") == {name: name for name in FILES}


@pytest.mark.parametrize("remote", [False, True])
def test_text_is_appended_and_folders_are_filled(remote, tmp_path):
    folder = new_folder() if remote else tmp_path
    for line in ("one\n", "two\n"):
        append(folder / "lines", line)
        with filling(folder) as local:
            (local / line.strip()).write_text(line)
    assert (folder / "lines").read_text() == "one\ntwo\n"
    assert sorted(path.name for path in folder.iterdir()) == ["lines", "one", "two"]
