"""Locks of folders: who holds one, who is refused, and what a dead holder leaves."""

import json
import multiprocessing
import os
import signal
import socket
from pathlib import Path

import pytest

from mobile_video_jax.core import lock
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.lock import new_folder, only_writer
from tests import object_store
from tests.commands import FORKS


def hold(folder: Path, is_locked: multiprocessing.Event, end: multiprocessing.Event) -> None:
    with only_writer(folder):
        is_locked.set()
        end.wait(60)


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock of tmp_path / "run", and what ends it."""
    is_locked, end = FORKS.Event(), FORKS.Event()
    process = FORKS.Process(target=hold, args=(tmp_path / "run", is_locked, end))
    process.start()
    try:
        assert is_locked.wait(60)
        yield process, end
    finally:
        process.kill()
        process.join()


def test_a_second_writer_is_told_who_the_first_is_and_comes_after_it(tmp_path, other):
    process, end = other
    written = (tmp_path / "run" / ".lock").read_text()
    for _ in range(2):
        with pytest.raises(UserError) as refused, only_writer(tmp_path / "run"):
            pass
    assert f"is being written by process {process.pid} on {socket.gethostname()} since 20" in str(refused.value)
    assert (tmp_path / "run" / ".lock").read_text() == written and json.loads(written)["pid"] == process.pid
    end.set()
    process.join()
    assert not (tmp_path / "run").exists()  # nothing but the lock was in it
    with only_writer(tmp_path / "run"):
        pass


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_file_system_that_takes_no_files_is_named():
    for locked in (only_writer(Path("/proc/run")), new_folder(Path("/proc/run"))):
        with pytest.raises(UserError, match="takes no new files: name a folder elsewhere"), locked:
            pass


def test_what_a_killed_writer_left_is_taken_over_and_its_unfinished_files_go(tmp_path, other):
    process, _ = other
    run = tmp_path / "run"
    (run / "vae" / f".model.{process.pid}.partial").mkdir(parents=True)
    (run / f".run.json.{process.pid}.partial").write_text("half")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with only_writer(run):
        assert sorted(path.name for path in run.rglob("*")) == [".lock", "vae"]
    assert [path.name for path in run.iterdir()] == ["vae"]


def test_a_new_folder_is_made_by_one_process_and_whole(tmp_path):
    out, stale = tmp_path / "set", tmp_path / ".set.1.partial"
    stale.mkdir()
    with new_folder(out) as temporary:
        (temporary / "file").write_text("whole")
        with pytest.raises(UserError, match=f"set is being written by process {os.getpid()}"), new_folder(out):
            pass
        assert not out.exists() and not stale.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["set"] and (out / "file").read_text() == "whole"
    with pytest.raises(UserError, match="set is not empty: name a new folder"), new_folder(out):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def holder(host: str, pid: int) -> str:
    return json.dumps({"host": host, "pid": pid, "since": "2026-01-01"})


@pytest.mark.parametrize("place", ["object store", "disk without locks"])
def test_where_the_system_keeps_no_locks_the_file_tells(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(lock.NO_LOCKS[0], "no locks")))
    folder, here = object_store.new_folder() if place == "object store" else tmp_path, socket.gethostname()
    (folder / ".lock").write_text(holder(here, os.getppid()))
    with pytest.raises(UserError, match=f"is being written by process {os.getppid()} on"), only_writer(folder):
        pass
    (folder / ".lock").write_text(holder(here, 2**22 + 1))  # no process has a larger number than 2^22
    with only_writer(folder):
        assert capsys.readouterr().err == ""
    (folder / ".lock").write_text(holder("elsewhere", 7))
    with only_writer(folder):
        assert json.loads((folder / ".lock").read_text())["pid"] == os.getpid()
    assert f"{folder} was opened by process 7 on elsewhere since 2026-01-01" in capsys.readouterr().err
    assert not (folder / ".lock").exists()
