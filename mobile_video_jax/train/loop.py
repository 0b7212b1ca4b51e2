"""The one training loop."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grain
import jax
from jax.sharding import Mesh

from mobile_video_jax.core.errors import Stopped, UserError
from mobile_video_jax.core.progress import say
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.data.loader import load
from mobile_video_jax.parallel.distributed import is_first, one_writer, wait_for_all
from mobile_video_jax.parallel.mesh import batch_sharding, check_batch, make_mesh, put_batch, replicated
from mobile_video_jax.train.checkpoint import newest_step
from mobile_video_jax.train.checkpoints import Checkpoints
from mobile_video_jax.train.compiled_step import StoredStep
from mobile_video_jax.train.config import TrainConfig
from mobile_video_jax.train.divergence import TrainingDiverged
from mobile_video_jax.train.held_out import evaluator
from mobile_video_jax.train.monitor import Monitor
from mobile_video_jax.train.optimizer import make_optimizer
from mobile_video_jax.train.preemption import Preemption
from mobile_video_jax.train.probe import check_writable
from mobile_video_jax.train.resume import initial_state, position
from mobile_video_jax.train.run import check_run, open_run, record_overrides, schedule_steps
from mobile_video_jax.train.sessions import Ending, Session
from mobile_video_jax.train.speed import Speed
from mobile_video_jax.train.stage import Cost, Stage
from mobile_video_jax.train.state import TrainState, inference_params, state_shardings, trainable
from mobile_video_jax.train.step import make_step
from mobile_video_jax.train.step_profile import StepProfile
from mobile_video_jax.train.timers import Timers
from mobile_video_jax.train.watchdog import Watchdog
from mobile_video_jax.train.writers import check_wandb


def train(stage: Stage, run: Path, executable: Path | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Trains a stage in a run directory, from its newest checkpoint where there is one.

    The step is compiled, or taken from a file that launch.compile left (see StoredStep). `overrides` are keys of the
    optimizer that may differ from those the run was begun with (see check_run).

    Returns step, loss, workdir and seconds. Raises TrainingDiverged; Stopped after SIGTERM or Ctrl-C, and where the
    sessions before failed at the same step; and UserError for bad input and for a run that another process writes.
    """
    started, timers, preemption = time.monotonic(), Timers(), Preemption()
    with one_writer(run), timers.compilation():
        with preemption.watched():
            with timers("start"):
                loop = _start(stage, run, executable, overrides, timers, preemption)
            ended: Ending = "failed"
            try:
                state, loss = loop.run()
                ended = "finished"
            except Stopped as stop:
                ended = "diverged" if isinstance(stop, TrainingDiverged) else "stopped"
                raise
            finally:
                loop.close(ended)
        preemption.check("all steps are done and saved")
        stage.finish(run, inference_params(stage, state), say)
    summary = {"step": int(state.step), "loss": loss, "workdir": str(run)}
    return summary | {"seconds": time.monotonic() - started, "goodput": timers.seconds}


def _start(
    stage: Stage,
    run: Path,
    executable: Path | None,
    overrides: Sequence[str],
    timers: Timers,
    preemption: Preemption,
) -> "_Loop":
    """Builds everything that can fail before anything is written: data, optimizer, shapes and the first state."""
    config = stage.config
    mesh = make_mesh(config.mesh)
    _check_batch(config, mesh)
    check_wandb(config.wandb)
    if config.profiler_port:
        jax.profiler.start_server(config.profiler_port)
    profile = StepProfile(config.profile, run / "profile")
    stored = StoredStep.read(executable, stage, mesh) if executable else None
    batches, held_out = load(stage.train_batches(mesh), config.loader_processes), stage.eval_batches(mesh)
    if held_out == () and is_first():
        say(f"{config.stage}: the data have no validation split, so nothing is evaluated while it trains")
    check_run(run, config, overrides)
    if newest_step(run) is not None:
        stage.check(run)
    preemption.check("nothing was begun")
    loop = _Loop(stage, run, mesh, batches, stored, profile, timers, preemption)
    if overrides and is_first():
        record_overrides(run, config, loop.first_step, overrides)
    return loop


def _check_batch(config: TrainConfig, mesh: Mesh) -> None:
    check_batch(config.batch_size, mesh)
    if config.batch_size % config.optimizer.accumulate:
        raise UserError(f"batch_size {config.batch_size} does not divide by accumulate {config.optimizer.accumulate}")


class _Loop:
    """One call of `train`: the compiled step, the state on the device, and when it is saved."""

    def __init__(
        self,
        stage: Stage,
        run: Path,
        mesh: Mesh,
        batches: grain.DatasetIterator,
        stored: StoredStep | None,
        profile: StepProfile,
        timers: Timers,
        preemption: Preemption,
    ):
        self.stage, self.config, self.mesh = stage, stage.config, mesh
        self.batches, self.profile, self.timers, self.preemption = batches, profile, timers, preemption
        config, steps = self.config, schedule_steps(run, self.config)
        if stored and steps != (config.optimizer.schedule_steps or config.steps):
            raise UserError(f"the step was compiled for another schedule: set optimizer.schedule_steps={steps}")
        optimizer = make_optimizer(config.optimizer, steps)
        shapes, shardings = state_shardings(stage, optimizer, mesh)
        cost = stage.cost()
        _say_size(stage, shapes, cost, mesh)
        self.state = initial_state(stage, run, optimizer, shapes, shardings, batches)
        self.step = make_step(stage, optimizer, mesh, shardings)
        jax.eval_shape(self.step, shapes, stage.abstract_batch())  # raises what tracing the loss raises
        if stored:
            self.step = stored.load(shapes, self.step)
        evaluate_batch = evaluator(
            stage,
            in_shardings=(inference_params(stage, shardings), batch_sharding(mesh), replicated(mesh)),
            out_shardings=replicated(mesh),
        )
        _open(stage, run)
        self.first_step = self.done = int(self.state.step)
        self.session = Session.begin(run, self.first_step, mesh)
        self.checkpoints = Checkpoints(run, keep=config.keep_checkpoints, every=config.keep_every, frozen=stage.frozen)
        self.monitor = Monitor(
            stage,
            run,
            mesh,
            evaluate_batch,
            checkpoints=self.checkpoints,
            session=self.session,
            speed=Speed(cost.flops, mesh.size),
            timers=timers,
        )
        self.watchdog = Watchdog(config.hang_seconds)

    def run(self) -> tuple[TrainState, float]:
        """Steps until the end; returns the last state and loss."""
        self.preemption.check("no step was done")
        with self.timers("steps"):
            loss = self._steps()
        return self.state, loss

    def close(self, ended: Ending) -> None:
        """Waits until the checkpoints are on disk, and records how the session ended and what its time went into."""
        self.watchdog.close()
        self.batches.close()
        self.profile.close()
        self.monitor.close()
        with self.timers("save_wait"):
            self.checkpoints.close()
        if is_first():
            self.session.end(self.done, self.timers.seconds, ended)

    def _steps(self) -> float:
        monitor, step, stop = self.monitor, self.first_step, False
        loss, pending = monitor.last_loss, None
        while step < self.config.steps and not stop:
            self.watchdog.step()
            with self.timers("data"):
                batch = next(self.batches)
            records = batch.pop("record")
            self.profile.before(step + 1)
            self.state, metrics = self.step(self.state, put_batch(batch, self.mesh))
            self.profile.after(step + 1, metrics)
            # Reading the step before last keeps the device busy while the host waits.
            if pending:
                loss = monitor.read(*pending, self.state)
            step, pending = step + 1, (step + 1, records, metrics)
            if monitor.needs_state(step):
                loss, pending = monitor.read(*pending, self.state), None
                self._save_if_due(step)
            self.done, stop = step, self.preemption.stop_after(step)
        if pending:
            loss = monitor.read(*pending, self.state)
        self._save(step)
        if stop:
            raise self.preemption.stop(f"step {step} is saved")
        return loss

    def _save_if_due(self, step: int) -> None:
        if self.monitor.is_due(step, self.config.checkpoint_every):
            self._save(step)
            self.monitor.progress.skip_time()

    def _save(self, step: int) -> None:
        if self.checkpoints.latest != step:
            with self.timers("save"):
                self.checkpoints.save(self.state, position(self.stage, self.batches), self.monitor.eval_loss(step))


def _say_size(stage: Stage, shapes: TrainState, cost: Cost, mesh: Mesh) -> None:
    total, trained = (count_parameters(part) for part in (shapes.params, trainable(stage, shapes.params)))
    say(
        f"{stage.config.stage}: {total:,} parameters, {trained:,} of them trained, "
        f"{cost.tokens} tokens and {cost.flops / 1e9:.1f} GFLOP a step, mesh {dict(mesh.shape)}"
    )


def _open(stage: Stage, run: Path) -> None:
    """Makes the run directory, once for all processes."""
    sampling = stage.sampling
    wait_for_all("every process has built what it runs")
    check_writable(run)
    if is_first():
        open_run(run, stage.config, stage.description(), sampling)
        stage.start(run)
    wait_for_all("the run directory is there")
