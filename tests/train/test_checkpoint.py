"""Checkpoints of a run: which are kept and found, and what is damaged or of another model is told apart."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.parallel.mesh import MeshConfig, make_mesh, replicated
from mobile_video_jax.train.checkpoint import (
    best_step,
    copy_model,
    newest_step,
    restore_item,
    restore_model,
    save_model,
    steps,
)
from mobile_video_jax.train.checkpoints import Checkpoints, restore_state
from mobile_video_jax.train.state import TrainState


def state(step: int) -> TrainState:
    w = {"w": jnp.arange(2.0) + step}
    return TrainState(jnp.int32(step), {"net": w}, w, {"net": w})


def save(run: Path, losses: dict[int, float], keep: int = 1) -> Checkpoints:
    checkpoints = Checkpoints(run, keep=keep)
    for step, loss in losses.items():
        checkpoints.save(state(step), {"next_index": step}, loss)
    checkpoints.close()
    return checkpoints


def shapes(*shape: int) -> dict:
    return {"w": jax.ShapeDtypeStruct(shape, jnp.float32, sharding=replicated(make_mesh(MeshConfig())))}


def restore(run: Path) -> tuple[TrainState, dict]:
    here = replicated(make_mesh(MeshConfig()))
    abstract = jax.eval_shape(lambda: state(0))
    return restore_state(run, abstract, jax.tree.map(lambda _: here, abstract))


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("run")
    save(run, {3: 1.0, 7: 2.0}, keep=2)
    return run


def test_the_best_evaluated_and_the_newest_are_kept_also_by_a_run_that_is_resumed(tmp_path):
    checkpoints = save(tmp_path, {1: 3.0, 2: 1.0, 3: 2.0})
    assert steps(tmp_path) == [2, 3] and checkpoints.best == best_step(tmp_path) == 2
    checkpoints = save(tmp_path, {4: float("inf")})
    assert steps(tmp_path) == [2, 4] and checkpoints.best == best_step(tmp_path) == 2
    assert checkpoints.latest == newest_step(tmp_path) == 4


def test_the_newest_or_any_other_step_is_restored(two, tmp_path):
    newest, position = restore(two)
    assert int(newest.step) == 7 and position == {"next_index": 7}
    np.testing.assert_array_equal(restore_model(two, shapes(2))["w"], [7, 8])
    np.testing.assert_array_equal(restore_model(two, shapes(2), step=3)["w"], [3, 4])
    copy_model(two, tmp_path, step=3)
    assert steps(tmp_path) == [3] and best_step(tmp_path) is None
    np.testing.assert_array_equal(restore_model(tmp_path, shapes(2))["w"], [3, 4])
    with pytest.raises(UserError, match="holds no step 4; it has 3, 7"):
        restore_model(two, shapes(2), step=4)
    with pytest.raises(UserError, match="holds no checkpoint: train it first"):
        restore_model(tmp_path / "none", shapes(2))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (shapes(3), r"holds w of shape \(2,\), this config has \(3,\): use the config that the run was trained with"),
        ({"bias": shapes(2)["w"]}, "holds no bias: it is of another model"),
    ],
)
def test_another_model_is_not_called_damage(two, target, message):
    with pytest.raises(UserError, match=message) as refused:
        restore_model(two, target)
    assert "damaged" not in str(refused.value) and "remove" not in str(refused.value)


def files(run: Path) -> list[Path]:
    checkpoint = run / "checkpoints" / "7"
    written = [path for item in ("model", "state") for path in (checkpoint / item).rglob("*")]
    return [path for path in written if path.is_file() and path.name not in ("checksums.json", "commit_success.txt")]


def test_a_flipped_byte_is_found_in_every_file(two, tmp_path):
    for number, original in enumerate(files(two)):
        run = tmp_path / str(number)
        shutil.copytree(two, run)
        path = run / original.relative_to(two)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"checkpoints/7 is damaged .*{path.name} is not as .*: remove it"):
            restore_model(run, shapes(2)) if "model" in path.parts else restore_item(run / "checkpoints/7/state", {})
    assert number > 8


def test_training_goes_back_to_the_step_before_a_damaged_one_and_says_so(two, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(two, run)
    max(files(run), key=lambda path: path.stat().st_size).write_bytes(b"garbage")
    back, position = restore(run)
    assert int(back.step) == 3 and position == {"next_index": 3}
    assert "checkpoints/7 is damaged" in capsys.readouterr().err and (run / "checkpoints/damaged-7").is_dir()
    checkpoints = save(run, {7: 1.0}, keep=2)
    assert steps(run) == [3, 7] and checkpoints.latest == 7


def test_multiples_of_keep_every_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1, every=4)
    for step in (2, 4, 6, 8, 10):
        checkpoints.save(state(step), {})
    checkpoints.close()
    assert steps(tmp_path) == [4, 8, 10]


def test_a_lost_file_is_named_and_an_only_checkpoint_is_not_to_be_removed(tmp_path):
    save_model(tmp_path, 7, state(7).ema)
    path = min(files(tmp_path))
    path.unlink()
    with pytest.raises(UserError, match=f"is damaged .*{path.name} is missing.: train the run anew in another folder"):
        restore_model(tmp_path, shapes(2))
