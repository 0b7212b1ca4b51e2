"""The probe of a run's folder."""

import os

import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.train.probe import check_writable
from tests.object_store import new_folder


def test_a_folder_that_takes_runs_passes_and_nothing_is_left_in_it(tmp_path):
    for folder in (tmp_path, new_folder()):
        check_writable(folder)
        check_writable(folder / "new" / "run")
        assert not list(folder.iterdir())


def test_a_mount_that_renames_no_folder_is_refused(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(UserError, match="folders cannot be renamed there .*: name a bucket as --workdir=gs://BUCKET"):
        check_writable(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        check_writable(tmp_path / "file")
