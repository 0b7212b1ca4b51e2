"""Ctrl-C at any moment of a training: what is done is saved, and the run resumes with the same losses to the bit."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from mobile_video_jax.core.errors import Stopped
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.preemption import Preemption
from tests import tiny
from tests.commands import Finished, start
from tests.train.test_resume import command, finish, losses, wait_for_step

ENDLESS = 1_000_000  # steps


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.latents(tmp_path_factory.mktemp("latents"))


def test_the_first_ctrl_c_is_a_request_and_the_second_leaves_at_once(monkeypatch, capfd):
    exits = []
    monkeypatch.setattr(os, "_exit", exits.append)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may have had it ignored
    try:
        with (preemption := Preemption()).watched():
            signal.raise_signal(signal.SIGINT)
            assert preemption.stop_after(1) and exits == [] and "Ctrl-C again leaves at once" in capfd.readouterr().err
            signal.raise_signal(signal.SIGINT)
            assert exits == [130]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_process_that_was_started_to_ignore_ctrl_c_goes_on_ignoring_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with (preemption := Preemption()).watched():
            signal.raise_signal(signal.SIGINT)
        assert not preemption.stop_after(1)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_a_training_that_is_interrupted_now_and_then_ends_like_one_that_was_not(data, tmp_path):
    stage = DitStage(tiny.dit_config(data, checkpoint_every=100))
    train(stage, tmp_path / "unbroken")
    moments, stops = random.Random(0), []
    while len(stops) < 4:
        interruption = threading.Timer(moments.uniform(0, 3), os.kill, (os.getpid(), signal.SIGINT))
        interruption.start()
        try:
            train(stage, tmp_path / "run")
            break
        except (Stopped, KeyboardInterrupt) as stop:
            stops.append(stop)
        finally:
            interruption.cancel()
    assert train(stage, tmp_path / "run")["step"] == 12
    assert losses(tmp_path / "run") == losses(tmp_path / "unbroken")


def ends_in_one_line(done: Finished) -> bool:
    """Status 130 without a traceback, or Python's own end where the command was still being imported."""
    if done.err.endswith("KeyboardInterrupt\n"):
        return "cli.run(" not in done.err
    return done.status == 130 and "Traceback" not in done.err


@pytest.mark.slow
def test_twenty_interruptions_at_random_moments_change_no_loss(data, tmp_path):
    """No moment comes too late: the run has more steps than it gets until it was interrupted enough."""
    optimizer = {"name": "adamw", "learning_rate": 1e-3, "warmup": 0, "schedule_steps": ENDLESS}
    config = {"checkpoint_every": 1000, "eval_every": 50, **{f"optimizer.{key}": optimizer[key] for key in optimizer}}
    run, cache, moments = tmp_path / "run", f"--compilation_cache={tmp_path}/cache", random.Random(0)
    for interruption in range(20):
        process = start(*command(data, run, steps=ENDLESS, **config), cache)
        if interruption % 2:
            wait_for_step(process, run, len(losses(run)) + 1)
            time.sleep(moments.uniform(0, 0.3))
        else:
            process.wait_for_start()
            time.sleep(moments.uniform(0, 5))
        process.signal(signal.SIGINT)
        done = process.finish()
        assert ends_in_one_line(done), done.err
    steps = len(losses(run)) + 3
    finish([*command(data, run, steps=steps, **config), cache])
    finish([*command(data, tmp_path / "unbroken", steps=steps, **config), cache])
    assert steps > 20 and losses(run) == losses(tmp_path / "unbroken")
