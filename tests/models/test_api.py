"""The package's own front: load a run, generate, save."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mobile_video_jax as mvj
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.generate.clips import GeneratedClips
from tests import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = tiny.dit_config(Path("nowhere"), text_tokens=16)
    return mvj.load(str(tiny.dit_run(tmp_path_factory.mktemp("runs") / "dit", config)))


def test_a_prompt_becomes_a_file_in_a_few_lines(model, tmp_path):
    clips = model.generate("a red circle moving left", steps=2)
    assert clips.frames.shape == (1, 9, 32, 32, 3) and clips.frames.dtype == np.uint8
    assert clips.save(str(tmp_path / "clip.mp4")) == [tmp_path / "clip.mp4"] and (tmp_path / "clip.mp4").stat().st_size


def test_a_clip_follows_from_its_prompt_and_seed_alone(model):
    both = model.generate(["a ring", "a blue square"], seed=3, steps=2)
    alone = model.generate("a blue square", seed=4, steps=2)
    assert np.abs(both.frames[1].astype(int) - alone.frames[0]).max() <= 1


def test_several_clips_are_numbered_and_other_suffixes_refused(tmp_path):
    clips = GeneratedClips(np.zeros((2, 1, 8, 8, 3), np.uint8), ["a", "b"])
    assert [path.name for path in clips.save(tmp_path / "c.gif")] == ["c-0.gif", "c-1.gif"]
    with pytest.raises(UserError, match=r"name a file that ends with .mp4 or .gif"):
        clips.save(tmp_path / "c.avi")


def test_importing_the_package_is_cheap():
    code = "import sys, mobile_video_jax as mvj; print(mvj.__version__); assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout[0].isdigit(), done.stderr
