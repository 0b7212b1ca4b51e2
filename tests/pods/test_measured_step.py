"""Measured steps beside the estimate: the timing on a CPU, and what is refused there."""

import jax
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.pods.measured_step import beside_estimate, mean_of_losses, measure_step, step_seconds
from mobile_video_jax.stages.registry import stage_of
from mobile_video_jax.train.compiled_step import lower_step
from tests import tiny
from tests.commands import run


def test_a_compiled_step_is_timed_on_random_batches():
    config = tiny.dit_config("synthetic")
    executable = lower_step(stage_of(config), make_mesh(config.mesh))[0].compile()
    assert 0 < step_seconds(executable, config, 2) < 60


def test_losses_count_by_their_share_of_a_training_not_of_the_timed_steps():
    times, taken = np.array([1.0, 1.0, 5.0, 3.0]), np.array([0, 0, 0, 1])
    assert mean_of_losses(times, taken, (0.8, 0.2)) == pytest.approx(0.8 * 1 + 0.2 * 3)
    assert mean_of_losses(times[:3], taken[:3], (0.8, 0.2)) == 1.0


def test_the_row_has_the_measured_mfu_beside_the_estimates():
    report = {"step_seconds": 0.2, "mfu": 0.6, "peak_bytes": 7}
    report["roofline"] = {"serial_seconds": 0.3, "serial_mfu": 0.4}
    row = beside_estimate("dit", report, 0.25)
    assert row["mfu"] == 0.48 and row["ratio"] == 0.8 and row["serial_mfu"] == 0.4


def test_what_is_no_tpu_is_refused():
    with pytest.raises(UserError, match="is no TPU slice of a known shape"):
        measure_step(tiny.dit_config("synthetic"), jax.devices(), 2)
    done = run("launch.benchmark", "--suite=tpu")
    assert done.status == 2 and "JAX finds no TPU here" in done.err
