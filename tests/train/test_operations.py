"""What a run tells of itself: where its time went, a trace of some steps, and where it hangs."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.train.sessions import read_sessions
from mobile_video_jax.train.timers import Timers
from tests import tiny
from tests.commands import call, start


class Hanging(DitStage):
    sample_every = 1

    def sample(self, *_):
        time.sleep(2.5)
        return {}


def train_and_hang(latents: Path, run: Path) -> None:
    train(Hanging(tiny.dit_config(latents, steps=1, hang_seconds=1)), run)


def test_time_within_a_block_counts_for_the_innermost():
    timers = Timers()
    with timers("outer"):
        time.sleep(0.02)
        with timers("inner"):
            time.sleep(0.1)
    with timers("inner"):
        time.sleep(0.05)
    assert 0.02 <= timers.seconds["outer"] < 0.1 and 0.15 <= timers.seconds["inner"] < 0.25


def test_compiling_counts_for_itself_and_only_where_it_is_asked_for():
    timers, started = Timers(), time.monotonic()
    with timers.compilation(), timers("work"):
        jax.jit(lambda x: jnp.tan(x) @ x.T)(np.ones((3, 5), np.float32))
    taken = time.monotonic() - started
    assert timers.seconds["compile"] > 0 and sum(timers.seconds.values()) == pytest.approx(taken, abs=0.05)
    before = dict(timers.seconds)
    jax.jit(lambda x: jnp.sin(x) @ x.T)(np.ones((3, 6), np.float32))
    assert timers.seconds == before


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    return tiny.latents(tmp_path_factory.mktemp("latents"))


def test_a_run_records_its_session_and_traces_the_steps_asked_for(latents, tmp_path):
    summary = train(DitStage(tiny.dit_config(latents, steps=3, profile="2-3")), tmp_path / "run")
    [session] = read_sessions(tmp_path / "run")
    assert session["steps"] == [0, 3] and session["processes"] == 1
    assert {"start", "compile", "data", "steps", "save", "evaluate"} <= session["seconds"].keys()
    assert sum(summary["goodput"].values()) == pytest.approx(summary["seconds"], rel=0.05)
    waits = [line["data_wait_seconds"] for line in read_metrics(tmp_path / "run")]
    assert sum(waits) == pytest.approx(session["seconds"]["data"], abs=0.002)
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"profile": "5"}, "is not of the form FIRST-LAST"),
        ({"profile": "3-2"}, "10-12"),
    ],
)
def test_operations_that_cannot_be_are_refused_before_anything_is_written(latents, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        train(DitStage(tiny.dit_config(latents, **changes)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_step_that_hangs_tells_where(latents, tmp_path):
    done = call(train_and_hang, latents, tmp_path / "run", devices=1)
    assert done.status == 0, done.err
    assert "a step has taken more than 1 s" in done.err and "in sample" in done.err


@pytest.mark.parametrize("environment", [{}, {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_NUM_PROCESSES": "two"}])
def test_without_a_job_there_is_nothing_to_join(tmp_path, environment):
    arguments = ["launch.train", "--config=configs/dit.py:tiny", f"--workdir={tmp_path}", "--distributed"]
    done = start(*arguments, devices=1, environment=environment).finish()
    assert done.status == 2
    [line] = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert "or set JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID" in line
