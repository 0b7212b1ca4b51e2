"""What a run tells of itself: where its time went, a trace of some steps, and where it hangs."""

import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import Stopped, UserError
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.train.sessions import Session, goodput, read_sessions
from mobile_video_jax.train.spikes import NormHistory, is_usable, remember_norms
from mobile_video_jax.train.timers import Timers
from mobile_video_jax.train.watchdog import Watchdog
from tests import tiny
from tests.commands import call, start


def hang() -> None:
    Watchdog(seconds=1).step()
    time.sleep(60)


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
    seconds = time.monotonic() - started
    assert timers.seconds["compile"] > 0 and sum(timers.seconds.values()) == pytest.approx(seconds, abs=0.05)
    before = dict(timers.seconds)
    jax.jit(lambda x: jnp.sin(x) @ x.T)(np.ones((3, 6), np.float32))
    assert timers.seconds == before


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    return tiny.latents(tmp_path_factory.mktemp("latents"))


@pytest.mark.slow
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


def test_a_step_that_hangs_tells_where_and_ends_the_process():
    done = call(hang, devices=1)
    assert done.status == 1, done.err
    assert "a step has taken more than 1 s" in done.err and "in hang" in done.err and "more than 2 s" in done.err


def begin(run: Path, first_step: int) -> Session:
    return Session.begin(run, first_step, make_mesh(MeshConfig()))


def test_a_killed_session_is_recorded_by_the_next_one(tmp_path):
    begin(tmp_path, 0).beat(7, {"steps": 2.0})
    begin(tmp_path, 4).end(9, {"steps": 1.0}, "finished")
    lost, finished = read_sessions(tmp_path)
    assert lost["ended"] == "lost" and lost["steps"] == [0, 7] and finished["steps"] == [4, 9]
    assert not (tmp_path / "session.json").exists()


def test_goodput_counts_a_repeated_step_once_and_the_time_between_sessions():
    first = {"steps": [0, 10], "seconds": {"steps": 10.0}, "began": 0.0, "until": 12.0}
    second = {"steps": [5, 20], "seconds": {"steps": 30.0}, "began": 20.0, "until": 50.0}
    assert goodput([first, second]) == pytest.approx(20 * 1.0 / 50)
    assert goodput([{"steps": [0, 5], "seconds": {"steps": 1.0}}]) == 0  # of an older version


def test_a_third_start_that_would_fail_at_the_same_step_ends_the_job_once(tmp_path):
    for _ in range(2):
        begin(tmp_path, 4).beat(7, {})
    with pytest.raises(Stopped, match="the two starts before failed at step 7, from step 4") as ended:
        begin(tmp_path, 4)
    assert ended.value.status == 4
    begin(tmp_path, 4).end(9, {"steps": 1.0}, "failed")
    begin(tmp_path, 4).end(8, {"steps": 1.0}, "failed")
    begin(tmp_path, 4)  # they failed at two steps, as by chance


def usable(loss: float, norm: float, history: NormHistory | None, sigmas: float) -> bool:
    return bool(is_usable(jnp.float32(loss), jnp.float32(norm), history, sigmas))


def test_a_spike_is_a_norm_far_above_the_last_ones():
    remember = remember_norms()
    state = remember.init(None)
    for norm in np.linspace(0.9, 1.1, 128):
        assert usable(1.0, 100.0, state, 6.0)  # too few norms to tell
        _, state = remember.update({"w": jnp.array([norm])}, state)
    assert usable(1.0, 1.3, state, 6.0) and not usable(1.0, 1.5, state, 6.0)
    assert not usable(1.0, jnp.nan, state, 6.0) and not usable(jnp.inf, 1.0, None, 0.0)


def test_a_synthetic_run_times_steps_needs_no_data_and_cannot_be_evaluated(tmp_path):
    for stage in (DitStage(tiny.dit_config("synthetic", steps=2)), VaeStage(tiny.vae_config("synthetic", steps=2))):
        run = tmp_path / stage.config.stage
        train(stage, run)
        line = read_metrics(run)[-1]
        assert line["step_seconds"] > 0 and line["param_norm"] > 0 and "eval_loss" not in line
        flops = stage.cost().flops
        assert line["tflops_per_device"] == pytest.approx(flops * line["steps_per_second"] / 1e12)
        with pytest.raises(UserError, match="was trained on synthetic batches"):
            Run.open(run).vae()


@pytest.mark.slow
def test_a_run_with_spikes_told_resumes(latents, tmp_path):
    optimizer = dataclasses.replace(tiny.OPTIMIZER, spike_sigmas=6.0)
    for steps in (1, 2):
        train(
            DitStage(tiny.dit_config(latents, steps=steps, optimizer=optimizer, eval_every=0, checkpoint_every=0)),
            tmp_path / "run",
        )
        assert (tmp_path / "run" / "checkpoints" / str(steps)).is_dir()  # the last step is always saved
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2]


@pytest.mark.parametrize("environment", [{}, {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_NUM_PROCESSES": "two"}])
def test_without_a_job_there_is_nothing_to_join(tmp_path, environment):
    arguments = ["launch.train", "--config=configs/dit.py:tiny", f"--workdir={tmp_path}", "--distributed"]
    done = start(*arguments, devices=1, environment=environment).finish()
    assert done.status == 2
    [line] = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert "or set JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID" in line
