"""The monitor of a run: reads each step's metrics, logs, evaluates and samples, and ends a run that diverges."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mobile_video_jax.core.background import Background
from mobile_video_jax.core.config import plain
from mobile_video_jax.core.progress import Progress, duration, say
from mobile_video_jax.parallel.distributed import is_first
from mobile_video_jax.parallel.mesh import put_batch
from mobile_video_jax.train.checkpoint import newest_step
from mobile_video_jax.train.checkpoints import Checkpoints
from mobile_video_jax.train.divergence import SkippedSteps, TrainingDiverged
from mobile_video_jax.train.held_out import means
from mobile_video_jax.train.metrics import MetricsLog
from mobile_video_jax.train.optimizer import logged_rate
from mobile_video_jax.train.run import schedule_steps
from mobile_video_jax.train.sessions import Session
from mobile_video_jax.train.speed import Speed
from mobile_video_jax.train.stage import Stage
from mobile_video_jax.train.state import TrainState, inference_params
from mobile_video_jax.train.timers import Timers


class Monitor:
    """Reads the metrics of a session's steps, in their order. `evaluate_batch` is compiled (see held_out.evaluator)."""

    def __init__(
        self,
        stage: Stage,
        run: Path,
        mesh: Mesh,
        evaluate_batch: Callable[..., Any],
        *,
        checkpoints: Checkpoints,
        session: Session,
        speed: Speed,
        timers: Timers,
    ):
        self.stage, self.config, self.run, self.mesh = stage, stage.config, run, mesh
        self.evaluate_batch, self.checkpoints, self.session = evaluate_batch, checkpoints, session
        self.speed, self.timers = speed, timers
        config, first_step = self.config, session.first_step
        self.schedule_steps = schedule_steps(run, config)
        self.log = MetricsLog(
            run, resumed_step=first_step, write=is_first(), project=config.wandb, config=plain(config)
        )
        self.say = say if is_first() else lambda text: None
        self.progress = Progress(f"{config.stage}:", config.steps, done=first_step, write=self.say)
        self.skipped = SkippedSteps(config.optimizer.skip_steps, self.log.last)
        self.background = Background()
        self.waited = 0.0  # seconds for data until the last report
        self.evaluated = 0, math.inf  # the step of the last evaluation, and its loss

    @property
    def last_loss(self) -> float:
        """The last loss that was logged, also by a session before; NaN where there is none."""
        loss: float = self.log.last.get("loss", math.nan)
        return loss

    def eval_loss(self, step: int) -> float:
        """The held-out loss of the step, infinite where it was not evaluated."""
        evaluated, loss = self.evaluated
        return loss if evaluated == step else math.inf

    def is_due(self, step: int, period: int) -> bool:
        """True at every multiple of the period, where it is not 0, and at the last step."""
        return period > 0 and (step % period == 0 or step == self.config.steps)

    def needs_state(self, step: int) -> bool:
        """True where the step is evaluated, sampled or saved, and so read before the next one starts."""
        periods = self.config.eval_every, self.config.checkpoint_every, self.stage.sample_every
        return any(self.is_due(step, period) for period in periods)

    def read(self, step: int, records: np.ndarray, metrics: Any, state: TrainState) -> float:
        """Waits for a step's metrics and returns its loss; logs, evaluates and samples `state` where it is time.

        Raises TrainingDiverged for too many steps without an update in a row, and where the stage collapses.
        """
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        # Metrics of losses that this step was not taken with are NaN.
        values = {name: x for name, x in values.items() if name in ("loss", "grad_norm") or not math.isnan(x)}
        values = self.skipped.check(step, records.tolist(), values, self._advice())
        if not values:
            return math.nan
        evaluated = self.is_due(step, self.config.eval_every)
        sampled = self.is_due(step, self.stage.sample_every)
        if evaluated or sampled or self.is_due(step, self.config.log_every):
            values |= self._rates(step, values["loss"])
            with self.timers("evaluate"):
                if evaluated:
                    values |= self._evaluate(step, state)
                if sampled:
                    values |= self._sample(step, state)
            self.background.call(self.log.write, step, values)
            if is_first():
                self.background.call(self.session.beat, step, dict(self.timers.seconds))
            if evaluated and "eval_loss" in values and (reason := self.stage.collapse_reason(values)):
                raise TrainingDiverged(f"{self.config.stage} collapses at step {step}: {reason}; {self._best()}")
        return values["loss"]

    def close(self) -> None:
        """Waits until all lines are written."""
        self.background.close()
        self.log.close()

    def _rates(self, step: int, loss: float) -> dict[str, float]:
        """The learning rate, and the speed since the last report."""
        rate = self.progress.report(step, f"loss {loss:.4f}")
        before, self.waited = self.waited, self.timers.seconds.get("data", 0.0)
        return {
            "learning_rate": logged_rate(self.config.optimizer, self.schedule_steps, step),
            "steps_per_second": rate,
            "data_wait_seconds": self.waited - before,
            **self.speed.metrics(rate, self.waited - before),
        }

    def _evaluate(self, step: int, state: TrainState) -> dict[str, float]:
        """Held-out metrics of the averaged weights, with the same batches and noise every time."""
        started, rows, params = time.monotonic(), [], inference_params(self.stage, state)
        for i, batch in enumerate(self.stage.eval_batches(self.mesh)):
            batch.pop("record")
            rows.append(self.evaluate_batch(params, put_batch(batch, self.mesh), jax.random.key(i)))
        if not rows:
            return {}
        metrics = {f"eval_{name}": mean for name, mean in means(rows).items()}
        self._say_beside_training(step, metrics, started)
        self.evaluated = step, metrics["eval_loss"]
        return metrics

    def _sample(self, step: int, state: TrainState) -> dict[str, float]:
        started = time.monotonic()
        samples = self.stage.sample(inference_params(self.stage, state), step, self.run)
        self.log.write_clips(step, samples.clips, samples.frame_rate)
        self._say_beside_training(step, samples.metrics, started)
        return samples.metrics

    def _say_beside_training(self, step: int, metrics: dict[str, float], started: float) -> None:
        text = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self.say(f"{self.config.stage}: step {step}  {text}  ({duration(time.monotonic() - started)})")
        self.progress.skip_time()

    def _advice(self) -> str:
        """The way on with another setting, which a run with a checkpoint must be told."""
        override = "" if newest_step(self.run) is None else " with --override=optimizer.learning_rate"
        return f"lower optimizer.learning_rate{override}"

    def _best(self) -> str:
        best = self.checkpoints.best
        return "nothing was saved before" if best is None else f"the best before is {self.checkpoints.path(best)}"
