"""Output folders: what is free is taken, what is one's own is resumed, and nothing else is written over."""

import pytest

from mobile_video_jax.core.claim import check_free, check_holds_only, claim
from mobile_video_jax.core.errors import UserError

INPUTS = {"seed": 1, "clip": [9, 32, 32]}


def test_a_free_folder_is_claimed_and_the_same_inputs_resume(tmp_path):
    for out in (tmp_path, tmp_path / "new" / "folder"):
        claim(out, "inputs.json", INPUTS, "evaluation")
        (out / "half.txt").write_text("done so far")
        claim(out, "inputs.json", {**INPUTS, "clip": (9, 32, 32)}, "evaluation")  # JSON knows no tuples


@pytest.mark.parametrize("changed", [{"seed": 2}, {"steps": 4}])
def test_other_inputs_are_refused_by_their_name(tmp_path, changed):
    claim(tmp_path, "inputs.json", INPUTS, "evaluation")
    [key] = changed
    with pytest.raises(UserError, match=f"was made with another {key}: name another --out"):
        claim(tmp_path, "inputs.json", INPUTS | changed, "evaluation")


def test_what_is_something_else_s_is_named_and_left_alone(tmp_path):
    (tmp_path / ".unfinished.partial").write_text("")
    check_holds_only(tmp_path, (), "run")
    (tmp_path / "thesis.txt").write_text("mine")
    check_holds_only(tmp_path, ("thesis.txt",), "run")
    with pytest.raises(UserError, match=r"holds no run \(thesis.txt\): name a new folder with --workdir"):
        check_holds_only(tmp_path, (), "run", flag="--workdir")
    with pytest.raises(UserError, match="holds no evaluation"):
        claim(tmp_path, "inputs.json", INPUTS, "evaluation")
    assert not (tmp_path / "inputs.json").exists()


def test_a_whole_folder_replaces_nothing(tmp_path):
    check_free(tmp_path)
    check_free(tmp_path / "new")
    (tmp_path / ".hidden").write_text("")  # a folder that holds it cannot be replaced
    for out in (tmp_path, tmp_path / ".hidden"):
        with pytest.raises(UserError, match="is not empty: name a new folder with --out"):
            check_free(out)
    with pytest.raises(UserError, match="is a file"):
        claim(tmp_path / ".hidden", "inputs.json", INPUTS, "evaluation")
