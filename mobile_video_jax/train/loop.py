"""The one training loop."""

import math
import signal
import time
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.flops import count_parameters
from mobile_video_jax.parallel.mesh import batch_sharding, check_batch, make_mesh, put_batch, replicated
from mobile_video_jax.train.checkpoint import Checkpoints, abstract
from mobile_video_jax.train.metrics import MetricsLog
from mobile_video_jax.train.optimizer import make_optimizer
from mobile_video_jax.train.progress import Progress, duration, say
from mobile_video_jax.train.run import open_run, read_run
from mobile_video_jax.train.stage import Stage
from mobile_video_jax.train.state import TrainState, create_state, state_shardings
from mobile_video_jax.train.step import make_step


class TrainingDiverged(Exception):
    """The loss is not finite: the message names the step and the records of its batch."""


class Preempted(Exception):
    """SIGTERM came: the state is saved, and the same command goes on from there."""


def train(stage: Stage, run: Path) -> dict[str, Any]:
    """Trains a stage in a run directory, from its newest checkpoint where there is one.

    Returns step, loss, workdir and seconds. Raises TrainingDiverged, Preempted, and UserError for bad input.
    """
    config, started = stage.config, time.monotonic()
    mesh = make_mesh(config.mesh)
    check_batch(config.batch_size, mesh)
    if config.batch_size % config.optimizer.accumulate:
        raise UserError(f"batch_size {config.batch_size} does not divide by accumulate {config.optimizer.accumulate}")
    # Bad data and a missing starting point are found before anything is written.
    batches, _ = iter(stage.train_batches()), stage.eval_batches()
    if config.init_from:
        read_run(Path(config.init_from))
    open_run(run, config, stage.description())
    stage.start(run)
    checkpoints = Checkpoints(run, keep=config.keep_checkpoints)
    try:
        state, loss = _Loop(stage, run, mesh, checkpoints, batches).run()
    finally:
        checkpoints.close()
    stage.finish(run, state.ema, say)
    return {"step": int(state.step), "loss": loss, "workdir": str(run), "seconds": time.monotonic() - started}


class _Loop:
    """The state of one call of `train`: what is compiled, what runs on the device, what waits to be logged."""

    def __init__(self, stage: Stage, run: Path, mesh: Mesh, checkpoints: Checkpoints, batches: grain.DatasetIterator):
        self.stage, self.config, self.mesh = stage, stage.config, mesh
        self.checkpoints, self.batches = checkpoints, batches
        optimizer = make_optimizer(self.config.optimizer, self.config.steps)
        shapes, shardings = state_shardings(stage, optimizer, mesh)
        self.state = self._initial_state(optimizer, shapes, shardings)
        self.step = make_step(stage, optimizer, mesh, shardings)
        self.evaluate_batch = jax.jit(
            stage.evaluate_batch,
            in_shardings=(shardings.ema, batch_sharding(mesh), replicated(mesh)),
            out_shardings=replicated(mesh),
        )
        self.log = MetricsLog(run, resumed_step=int(self.state.step))
        self.progress = Progress(f"{self.config.stage}:", self.config.steps, done=int(self.state.step))
        self.terminated = False
        self.waited = 0.0

    def _initial_state(self, optimizer: Any, shapes: TrainState, shardings: TrainState) -> TrainState:
        cost = self.stage.cost()
        say(
            f"{self.config.stage}: {count_parameters(shapes.params) / 1e6:.2f} M parameters, {cost.tokens} tokens and "
            f"{cost.flops / 1e9:.1f} GFLOP a step, mesh {dict(self.mesh.shape)}"
        )
        if self.checkpoints.latest is not None:
            state, position = self.checkpoints.restore(shapes, shardings)
            self.batches.set_state(position)
            say(f"{self.config.stage}: goes on from step {int(state.step)}")
            return state
        given = self.stage.given(jax.tree.map(abstract, shapes.params, shardings.params))
        return create_state(self.stage, optimizer, jax.random.key(self.config.seed), shardings, given)

    def run(self) -> tuple[TrainState, float]:
        """Steps until the end; returns the last state and loss."""
        previous = signal.signal(signal.SIGTERM, self._terminate)
        try:
            loss = self._steps()
            return self.state, loss
        finally:
            signal.signal(signal.SIGTERM, previous)
            self.log.close()

    def _terminate(self, *_: Any) -> None:
        self.terminated = True

    def _steps(self) -> float:
        config, step = self.config, int(self.state.step)
        loss = self.log.last.get("loss", math.nan)
        pending: tuple[int, np.ndarray, Any] | None = None
        while step < config.steps and not self.terminated:
            started = time.monotonic()
            batch = next(self.batches)
            self.waited += time.monotonic() - started
            records = batch.pop("record")
            self.state, metrics = self.step(self.state, put_batch(batch, self.mesh))
            # Reading the step before last keeps the device busy while the host waits.
            if pending:
                loss = self._finish_step(*pending)
            step, pending = step + 1, (step + 1, records, metrics)
            if self._due(step, config.eval_every) or self._due(step, config.checkpoint_every):
                loss, pending = self._finish_step(*pending), None
                self._save_if_due(step)
        if pending:
            loss = self._finish_step(*pending)
        if self.terminated:
            self._save(step)
            raise Preempted(f"SIGTERM: step {step} is saved; the same command goes on from there")
        return loss

    def _due(self, step: int, period: int) -> bool:
        return step % period == 0 or step == self.config.steps

    def _finish_step(self, step: int, records: np.ndarray, metrics: Any) -> float:
        """Reads a step's metrics, checks and logs them; evaluates where it is time."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
            raise TrainingDiverged(
                f"loss is {values['loss']} and grad_norm {values['grad_norm']} at step {step}, "
                f"batch records {records.tolist()}: lower optimizer.learning_rate or look at these records"
            )
        evaluated = self._due(step, self.config.eval_every)
        if evaluated or self._due(step, self.config.log_every):
            rate = self.progress.report(step, f"loss {values['loss']:.4f}")
            values |= {"steps_per_second": rate, "data_wait_seconds": self.waited}
            self.waited = 0.0
            if evaluated:
                values |= self._evaluate(step)
            self.log.write(step, values)
        return values["loss"]

    def _evaluate(self, step: int) -> dict[str, float]:
        """Held-out metrics of the averaged weights, with the same batches and noise every time."""
        started, rows = time.monotonic(), []
        for i, batch in enumerate(self.stage.eval_batches()):
            batch.pop("record")
            rows.append(self.evaluate_batch(self.state.ema, put_batch(batch, self.mesh), jax.random.key(i)))
        means = {f"eval_{name}": float(np.mean([row[name] for row in rows])) for name in rows[0]}
        text = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
        say(f"{self.config.stage}: step {step}  {text}  ({duration(time.monotonic() - started)})")
        self.progress.skip_time()
        return means

    def _save_if_due(self, step: int) -> None:
        if self._due(step, self.config.checkpoint_every):
            self._save(step)
            self.progress.skip_time()

    def _save(self, step: int) -> None:
        if self.checkpoints.latest != step:
            self.checkpoints.save(self.state, self.batches.get_state())
