"""Beam itself, in processes of this machine, in an environment with the older packages that it asks for."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.dataset import open_split, read_manifest
from mobile_video_jax.data.prepare.beam_job import BeamJob
from mobile_video_jax.data.prepare.prepare import prepare
from tests.data.videos import video_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """An interpreter that finds Beam and what it asks for first, and all else in this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *extras["beam"]], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "launch.prepare_data", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "--direct_num_workers=2 --direct_running_mode=multi_processing"])
def test_the_command_prepares_a_folder_with_beam(python, tmp_path, options):
    folder = video_folder(tmp_path / "videos", 6, frames=3)
    (folder / "clip04.mp4").write_text("no video")
    out, local = tmp_path / "out", tmp_path / "local"
    expected = prepare(str(folder), local)
    done = run(python, f"--source={folder}", f"--out={out}", "--runner=direct", f"--pipeline_options={options}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {**expected, "out": str(out)}
    mine, theirs = read_manifest(out), read_manifest(local)
    differ = dict.fromkeys(("created", "sha256"))  # equal records, below, may be packed otherwise
    assert {**mine, **differ} == {**theirs, **differ}
    for split in (split for split, size in theirs["splits"].items() if size):
        assert list(open_split(out, split)[0]) == list(open_split(local, split)[0])


@pytest.mark.slow
def test_what_beam_refuses_is_one_line(python, tmp_path):
    folder, out = video_folder(tmp_path / "videos", 1, frames=3), tmp_path / "out"
    for runner, options, words in (
        ("direct", "--direct_num_workers=many", "Beam refuses --pipeline_options=--direct_num_workers=many"),
        ("dataflow", "", "Missing required option: project"),
    ):
        options = f"--pipeline_options={options}"
        done = run(python, f"--source={folder}", f"--out={out}", f"--runner={runner}", options)
        assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: ")
        assert words in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not out.exists()


def test_beam_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"Beam is not installed .*pip install -e '.\[beam\]'"):
        BeamJob("direct")
