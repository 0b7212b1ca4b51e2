"""Kills, signals and changed device counts, on real processes."""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from mobile_video_jax.train.metrics import read_metrics
from tests import tiny
from tests.commands import Started, start

pytestmark = pytest.mark.first

OVERRIDES = {
    **{"clip": tiny.CLIP, "compression": tiny.COMPRESSION, "text_tokens": 12, "batch_size": 8},
    **{"steps": 12, "log_every": 1, "eval_every": 6, "eval_batches": 1, "checkpoint_every": 4},
    **{"model.width": 192, "model.heads": 6, "model.depth": 1, "model.ffn": 384, "model.time_features": 32},
}


def command(data: Path, run: Path, **overrides) -> list[str]:
    keys = {**OVERRIDES, "data": data, **overrides}
    config = [f"--config.{key}={value}" for key, value in keys.items()]
    return ["launch.train", "--config=configs/dit.py:tiny", f"--workdir={run}", *config]


def finish(arguments: list[str], *, devices: int = 1) -> dict:
    status, out, err = start(*arguments, devices=devices).finish()
    assert status == 0, err
    return json.loads(out.splitlines()[-1])


def wait_for_step(process: Started, run: Path, step: int) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.process.is_alive():
        if any(line["step"] >= step for line in read_metrics(run)):
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} never came: {process.finish(0)}")


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run)]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.latents(tmp_path_factory.mktemp("latents"))


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory) -> list[float]:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    summary = finish(command(data, run))
    assert summary["step"] == 12 and summary["loss"] == losses(run)[-1]
    return losses(run)


def test_kill_9_and_start_again_gives_the_same_losses_to_the_bit(data, unbroken, tmp_path):
    process = start(*command(data, tmp_path / "run"), devices=1)
    wait_for_step(process, tmp_path / "run", 6)
    process.signal(signal.SIGKILL)
    process.finish()
    assert len(losses(tmp_path / "run")) < 12
    finish(command(data, tmp_path / "run"))
    assert losses(tmp_path / "run") == unbroken


@pytest.mark.slow
def test_sigterm_saves_and_leaves_and_the_run_goes_on(data, unbroken, tmp_path):
    process = start(*command(data, tmp_path / "run", checkpoint_every=1000, steps=100_000), devices=1)
    wait_for_step(process, tmp_path / "run", 3)
    process.signal(signal.SIGTERM)
    status, _, err = process.finish(120)
    assert status == 143 and "the same command resumes" in err
    [saved] = [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert saved == read_metrics(tmp_path / "run")[-1]["step"] >= 3


def test_a_second_training_in_the_folder_is_refused_and_the_first_ends_undisturbed(data, unbroken, tmp_path):
    first = start(*command(data, tmp_path / "run"), devices=1)
    wait_for_step(first, tmp_path / "run", 1)
    status, _, err = start(*command(data, tmp_path / "run"), devices=1).finish()
    assert status == 2 and f"error: {tmp_path}/run is being written by process {first.process.pid} on" in err
    status, _, err = first.finish()
    assert status == 0 and losses(tmp_path / "run") == unbroken, err


@pytest.mark.slow
def test_eight_devices_equal_one_and_the_run_may_change_between_them(data, unbroken, tmp_path):
    mesh = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2}
    finish(command(data, tmp_path / "eight", **mesh), devices=8)
    np.testing.assert_allclose(losses(tmp_path / "eight"), unbroken, rtol=1e-5)
    # Half the run on eight devices, the rest on one: drop the last save, as if it had not come to it.
    shutil.rmtree(tmp_path / "eight" / "checkpoints" / "12")
    finish(command(data, tmp_path / "eight"))
    np.testing.assert_allclose(losses(tmp_path / "eight"), unbroken, rtol=1e-5)
