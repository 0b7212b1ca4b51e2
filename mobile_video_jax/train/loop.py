"""The one training loop."""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from mobile_video_jax.core.background import Background
from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import Stopped, UserError
from mobile_video_jax.core.progress import Progress, duration, say
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.data.loader import load
from mobile_video_jax.parallel.abstract import abstract
from mobile_video_jax.parallel.distributed import is_first, one_writer, wait_for_all
from mobile_video_jax.parallel.mesh import batch_sharding, check_batch, make_mesh, put_batch, replicated
from mobile_video_jax.train.checkpoint import newest_step
from mobile_video_jax.train.checkpoints import Checkpoints, restore_state
from mobile_video_jax.train.compiled_step import StoredStep
from mobile_video_jax.train.config import TrainConfig
from mobile_video_jax.train.divergence import SkippedSteps, TrainingDiverged
from mobile_video_jax.train.held_out import evaluator, means
from mobile_video_jax.train.metrics import MetricsLog
from mobile_video_jax.train.optimizer import logged_rate, make_optimizer
from mobile_video_jax.train.preemption import Preemption
from mobile_video_jax.train.probe import check_writable
from mobile_video_jax.train.run import check_run, open_run, record_overrides, schedule_steps
from mobile_video_jax.train.sessions import Ending, Session
from mobile_video_jax.train.speed import Speed
from mobile_video_jax.train.stage import Stage
from mobile_video_jax.train.state import (
    TrainState,
    create_state,
    frozen_parts,
    inference_params,
    state_shardings,
    trainable,
)
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
    """The state of one call of `train`: what is compiled, what runs on the device, what waits to be logged."""

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
        self.stage, self.config, self.run_folder, self.mesh = stage, stage.config, run, mesh
        self.batches, self.profile, self.timers, self.preemption = batches, profile, timers, preemption
        self.schedule_steps = schedule_steps(run, self.config)
        if stored and self.schedule_steps != (self.config.optimizer.schedule_steps or self.config.steps):
            raise UserError(
                f"the step was compiled for another schedule: set optimizer.schedule_steps={self.schedule_steps}"
            )
        optimizer = make_optimizer(self.config.optimizer, self.schedule_steps)
        shapes, shardings = state_shardings(stage, optimizer, mesh)
        self.cost = stage.cost()
        self.speed = Speed(self.cost.flops, mesh.size)
        self.state = self._initial_state(optimizer, shapes, shardings)
        self.step = make_step(stage, optimizer, mesh, shardings)
        jax.eval_shape(self.step, shapes, stage.abstract_batch())  # raises what tracing the loss raises
        if stored:
            self.step = stored.load(shapes, self.step)
        self.evaluate_batch = evaluator(
            stage,
            in_shardings=(inference_params(stage, shardings), batch_sharding(mesh), replicated(mesh)),
            out_shardings=replicated(mesh),
        )
        self._open(stage, run)
        self.first_step = self.done = int(self.state.step)
        self.session = Session.begin(run, self.first_step, mesh)
        config = self.config
        self.checkpoints = Checkpoints(run, keep=config.keep_checkpoints, every=config.keep_every, frozen=stage.frozen)
        self.log = MetricsLog(
            run,
            resumed_step=self.first_step,
            write=is_first(),
            project=config.wandb,
            config=plain(config),
        )
        self.say = say if is_first() else lambda text: None
        self.progress = Progress(f"{self.config.stage}:", self.config.steps, done=self.first_step, write=self.say)
        self.skipped = SkippedSteps(config.optimizer.skip_steps, self.log.last)
        self.background = Background()
        self.watchdog = Watchdog(self.config.hang_seconds)
        self.waited = 0.0  # seconds for data until the last report
        self.evaluated = 0, math.inf  # the step of the last evaluation, and its loss

    def _open(self, stage: Stage, run: Path) -> None:
        """Makes the run directory, once for all processes."""
        sampling = stage.sampling
        wait_for_all("every process has built what it runs")
        check_writable(run)
        if is_first():
            open_run(run, self.config, stage.description(), sampling)
            stage.start(run)
        wait_for_all("the run directory is there")

    def _initial_state(self, optimizer: Any, shapes: TrainState, shardings: TrainState) -> TrainState:
        cost = self.cost
        total, trained = (count_parameters(part) for part in (shapes.params, trainable(self.stage, shapes.params)))
        say(
            f"{self.config.stage}: {total:,} parameters, {trained:,} of them trained, "
            f"{cost.tokens} tokens and {cost.flops / 1e9:.1f} GFLOP a step, mesh {dict(self.mesh.shape)}"
        )
        rng, target = jax.random.key(self.config.seed), jax.tree.map(abstract, shapes.params, shardings.params)
        if newest_step(self.run_folder) is None:
            return create_state(self.stage, optimizer, rng, shardings, self.stage.pretrained(target))
        state, saved = restore_state(self.run_folder, shapes, shardings, self.stage.frozen)
        position, sizes = (saved["iterator"], saved["batch_sizes"]) if "batch_sizes" in saved else (saved, {})
        trees: list[Any] = [jax.tree.structure(tree) for tree in (position, self.batches.get_state())]
        if trees[0] != trees[1]:
            raise UserError(
                f"{self.run_folder} was saved at a position in other data: resume it with its own data sets"
            )
        self._check_batch_sizes(sizes)
        self.batches.set_state(position)
        say(f"{self.config.stage}: goes on from step {int(state.step)}")
        self._say_schedule()
        return dataclasses.replace(state, params=state.params | frozen_parts(self.stage, rng, shardings.params, target))

    def _check_batch_sizes(self, saved: Mapping[str, int]) -> None:
        """Raises UserError where a saved position counts batches of other sizes than this mesh's."""
        sizes = self.stage.batch_sizes()
        if saved and saved != sizes:  # older versions and stages of one size save none
            raise UserError(
                f"{self.run_folder} was trained in batches of {saved} clips, here they are {sizes}, and its position "
                "would mean other clips: use a mesh of as many data shards, or change token_budget"
            )

    def _position(self) -> Any:
        """The iterator's position, and the sizes of the batches that it counts."""
        sizes, position = self.stage.batch_sizes(), self.batches.get_state()
        return {"iterator": position, "batch_sizes": sizes} if sizes else position

    def _say_schedule(self) -> None:
        """Says what becomes of a decaying learning rate where a run gets more steps than it was begun with."""
        config, steps = self.config.optimizer, self.schedule_steps
        if config.schedule != "constant" and self.config.steps > steps:
            say(
                f"{self.config.stage}: the {config.schedule} schedule ends at step {steps}, where the rate is 0; "
                f"--config.optimizer.schedule_steps={self.config.steps} stretches it, and the rate jumps"
            )

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
        self.background.close()
        self.log.close()
        with self.timers("save_wait"):
            self.checkpoints.close()
        if is_first():
            self.session.end(self.done, self.timers.seconds, ended)

    def _steps(self) -> float:
        config, step, stop = self.config, self.first_step, False
        loss: float = self.log.last.get("loss", math.nan)
        pending: tuple[int, np.ndarray, Any] | None = None
        while step < config.steps and not stop:
            self.watchdog.step()
            with self.timers("data"):
                batch = next(self.batches)
            records = batch.pop("record")
            self.profile.before(step + 1)
            self.state, metrics = self.step(self.state, put_batch(batch, self.mesh))
            self.profile.after(step + 1, metrics)
            # Reading the step before last keeps the device busy while the host waits.
            if pending:
                loss = self._finish_step(*pending)
            step, pending = step + 1, (step + 1, records, metrics)
            if any(self._due(step, period) for period in self._pauses()):
                loss, pending = self._finish_step(*pending), None
                self._save_if_due(step)
            self.done, stop = step, self.preemption.stop_after(step)
        if pending:
            loss = self._finish_step(*pending)
        if stop:
            self._save(step)
            raise self.preemption.stop(f"step {step} is saved")
        self._save(step)
        return loss

    def _pauses(self) -> tuple[int, ...]:
        """The periods of what needs the state of its own step."""
        return self.config.eval_every, self.config.checkpoint_every, self.stage.sample_every

    def _due(self, step: int, period: int) -> bool:
        return period > 0 and (step % period == 0 or step == self.config.steps)

    def _finish_step(self, step: int, records: np.ndarray, metrics: Any) -> float:
        """Reads a step's metrics, checks and logs them; evaluates and samples where it is time."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        # Metrics of losses that this step was not taken with are NaN.
        values = {name: x for name, x in values.items() if name in ("loss", "grad_norm") or not math.isnan(x)}
        values = self.skipped.check(step, records.tolist(), values, self._advice())
        if not values:
            return math.nan
        evaluated = self._due(step, self.config.eval_every)
        sampled = self._due(step, self.stage.sample_every)
        if evaluated or sampled or self._due(step, self.config.log_every):
            rate = self.progress.report(step, f"loss {values['loss']:.4f}")
            waited, self.waited = self.waited, self.timers.seconds.get("data", 0.0)
            values["learning_rate"] = logged_rate(self.config.optimizer, self.schedule_steps, step)
            values |= {"steps_per_second": rate, "data_wait_seconds": self.waited - waited}
            values |= self.speed.metrics(rate, self.waited - waited)
            with self.timers("evaluate"):
                if evaluated:
                    values |= self._evaluate(step)
                if sampled:
                    values |= self._sample(step)
            self.background.call(self.log.write, step, values)
            if is_first():
                self.background.call(self.session.beat, step, dict(self.timers.seconds))
            if evaluated and "eval_loss" in values and (reason := self.stage.collapse_reason(values)):
                raise TrainingDiverged(f"{self.config.stage} collapses at step {step}: {reason}; {self._best()}")
        return values["loss"]

    def _advice(self) -> str:
        """The way on with another setting, which a run with a checkpoint must be told."""
        override = "" if newest_step(self.run_folder) is None else " with --override=optimizer.learning_rate"
        return f"lower optimizer.learning_rate{override}"

    def _best(self) -> str:
        best = self.checkpoints.best
        return "nothing was saved before" if best is None else f"the best before is {self.checkpoints.path(best)}"

    def _evaluate(self, step: int) -> dict[str, float]:
        """Held-out metrics of the averaged weights, with the same batches and noise every time."""
        started, rows, model = time.monotonic(), [], inference_params(self.stage, self.state)
        for i, batch in enumerate(self.stage.eval_batches(self.mesh)):
            batch.pop("record")
            rows.append(self.evaluate_batch(model, put_batch(batch, self.mesh), jax.random.key(i)))
        if not rows:
            return {}
        metrics = {f"eval_{name}": mean for name, mean in means(rows).items()}
        self._say_beside_training(step, metrics, started)
        self.evaluated = step, metrics["eval_loss"]
        return metrics

    def _sample(self, step: int) -> dict[str, float]:
        started = time.monotonic()
        samples = self.stage.sample(inference_params(self.stage, self.state), step, self.run_folder)
        self.log.write_clips(step, samples.clips, samples.frame_rate)
        self._say_beside_training(step, samples.metrics, started)
        return samples.metrics

    def _say_beside_training(self, step: int, metrics: dict[str, float], started: float) -> None:
        text = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self.say(f"{self.config.stage}: step {step}  {text}  ({duration(time.monotonic() - started)})")
        self.progress.skip_time()

    def _save_if_due(self, step: int) -> None:
        if self._due(step, self.config.checkpoint_every):
            self._save(step)
            self.progress.skip_time()

    def _save(self, step: int) -> None:
        if self.checkpoints.latest != step:
            with self.timers("save"):
                evaluated, loss = self.evaluated
                self.checkpoints.save(self.state, self._position(), loss if evaluated == step else math.inf)
