"""Which checkpoints of a run are kept."""

from pathlib import Path

import jax.numpy as jnp

from mobile_video_jax.train.checkpoint import Checkpoints
from mobile_video_jax.train.state import TrainState


def save(run: Path, losses: dict[int, float]) -> Checkpoints:
    checkpoints = Checkpoints(run, keep=1)
    for step, loss in losses.items():
        w = {"w": jnp.ones(2)}
        checkpoints.save(TrainState(jnp.int32(step), {"net": w}, w, {"net": w}), {}, loss)
    checkpoints.close()
    return checkpoints


def test_the_best_evaluated_and_the_newest_are_kept_also_by_a_run_that_goes_on(tmp_path):
    kept = lambda: {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    checkpoints = save(tmp_path, {1: 3.0, 2: 1.0, 3: 2.0})
    assert kept() == {2, 3} and checkpoints.best == 2
    checkpoints = save(tmp_path, {4: float("inf")})
    assert kept() == {2, 4} and checkpoints.best == 2 and checkpoints.latest == 4
