"""Jobs of several real processes: one is killed, another told to leave, and the losses are the unbroken run's."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.train.sessions import read_sessions
from tests import tiny
from tests.commands import Started
from tests.train.jobs import finish_job, start_job
from tests.train.test_resume import command, losses, wait_for_step

pytestmark = pytest.mark.first

STEPS = 30


def start(latents: Path, run: Path, processes: int, devices: int = 1, **mesh: int) -> list[Started]:
    """A job that trains; one process of one device is no job but a plain run."""
    training = {"steps": STEPS, "eval_every": STEPS, "optimizer.name": "adamw", "optimizer.learning_rate": 1e-3}
    arguments = command(latents, run, **training, **{f"mesh.{axis}": n for axis, n in mesh.items()})
    return start_job(arguments, processes=processes, devices=devices, join=processes > 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.latents(tmp_path_factory.mktemp("latents"))


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory) -> list[float]:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    [(status, _, err)] = finish_job(start(data, run, 1))
    assert status == 0, err
    return losses(run)


@pytest.mark.slow
def test_a_run_survives_a_kill_and_a_preemption_on_other_process_counts_and_meshes(data, unbroken, tmp_path):
    run = tmp_path / "run"
    job = start(data, run, 2, data=2)
    wait_for_step(job[0], run, 5)
    job[1].signal(signal.SIGKILL)
    (exit_code, _, err), (killed_code, _, _) = finish_job(job)
    assert exit_code not in (0, None) and killed_code == -signal.SIGKILL
    assert "another has gone" in err or "another task died" in err

    job = start(data, run, 4, data=2, fsdp=2)
    wait_for_step(job[0], run, len(losses(run)) + 1)
    job[3].signal(signal.SIGTERM)
    ended = finish_job(job)
    assert [status for status, _, _ in ended] == [143] * 4
    assert all("the same command resumes" in err for _, _, err in ended)

    first, second = finish_job(start(data, run, 2, 2, fsdp=2, tensor=2))
    assert first.status == second.status == 0 and not second.out.strip().endswith("}")
    assert json.loads(first.out.splitlines()[-1])["step"] == STEPS
    assert [line["step"] for line in read_metrics(run)] == list(range(1, STEPS + 1))
    np.testing.assert_allclose(losses(run), unbroken, rtol=1e-4)
    # The first job may have been ended by JAX before it could record itself.
    assert [session["processes"] for session in read_sessions(run)][-2:] == [4, 2]


@pytest.mark.slow
def test_bad_input_to_a_job_ends_every_process_with_one_line(data, tmp_path):
    for status, _, err in finish_job(start(data, tmp_path / "run", 2, fsdp=3)):
        assert status == 2 and [line for line in err.splitlines() if line.startswith("error: ")]
    assert not (tmp_path / "run").exists()
