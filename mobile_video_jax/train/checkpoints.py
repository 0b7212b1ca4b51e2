"""The checkpoints of a training: model (EMA parameters), the rest of the state, and the data position."""

import contextlib
import errno
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json
from mobile_video_jax.core.storage import ObjectPath
from mobile_video_jax.parallel.abstract import abstract
from mobile_video_jax.parallel.distributed import from_first, is_first
from mobile_video_jax.train.checkpoint import FOLDER, MODEL, checkpoint_path, restore_item, sound_step
from mobile_video_jax.train.checksums import write_checksums
from mobile_video_jax.train.state import TrainState

STATE, DATA = "state", "data"


class Checkpoints:
    """Saves to RUN/checkpoints/STEP/{model,state,data} beside training.

    The `keep` newest, the best and those at multiples of `every` steps are kept.
    Frozen sub-trees are not saved; on resume they are loaded from their source again.
    """

    def __init__(self, run: Path, *, keep: int, every: int = 0, frozen: frozenset[str] = frozenset()):
        self._folder, self._frozen, self._saving = run.absolute() / FOLDER, frozen, -1
        preserved = [
            policies.LatestN(keep),
            policies.BestN(get_metric_fn=_goodness, n=1, keep_checkpoints_without_metrics=False),
            *([policies.EveryNSteps(every)] if every else []),
        ]
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                best_fn=_goodness,
                preservation_policy=policies.AnyPreservationPolicy(preserved),
                cleanup_tmp_directories=True,
                async_options=ocp.options.AsyncOptions(post_finalization_callback=self._write_checksums),
            ),
        )

    @property
    def latest(self) -> int | None:
        """The newest step that is saved or being saved, None where there is none."""
        step: int | None = self._manager.latest_step()
        return step

    @property
    def best(self) -> int | None:
        """The step of the least evaluation loss, None where there is none."""
        step: int | None = self._manager.best_step()
        return step

    def path(self, step: int) -> Path:
        """The folder of a step."""
        return self._folder / str(step)

    def save(self, state: TrainState, data_state: Any, loss: float = math.inf) -> None:
        """Starts saving the state and the iterator's JSON-able position; returns before it is on disk.

        `loss` is that of an evaluation of this state, infinite where there was none. Raises UserError for a full disk.
        """
        items = {
            MODEL: ocp.args.StandardSave(state.ema),
            STATE: ocp.args.StandardSave(_rest(state, self._frozen)),
            DATA: ocp.args.JsonSave(data_state),
        }
        with _full_disk_reported(self._folder):
            self._manager.wait_until_finished()  # so that `_saving` names one step
            self._saving = int(state.step)
            self._manager.save(self._saving, args=ocp.args.Composite(**items), metrics={"loss": loss})

    def _write_checksums(self) -> None:
        """Runs when all files are written and before the step counts as saved. Object stores keep checksums."""
        if is_first() and not isinstance(self._folder, ObjectPath):
            for folder in self._folder.glob(f"{self._saving}.*"):
                for item in (MODEL, STATE):
                    write_checksums(folder / item)

    def close(self) -> None:
        """Waits until everything is on disk. Raises UserError where that is full."""
        with _full_disk_reported(self._folder):
            self._manager.wait_until_finished()
        self._manager.close()


def restore_state(
    run: Path, shapes: TrainState, shardings: TrainState, frozen: frozenset[str] = frozenset()
) -> tuple[TrainState, Any]:
    """The newest sound state without frozen sub-trees, sharded as `shardings` say, and the data position.

    Raises UserError where every checkpoint is damaged, and for one of another model.
    """
    checkpoint = checkpoint_path(run, _sound_step(run))
    target = jax.tree.map(abstract, shapes, shardings)
    model = restore_item(checkpoint / MODEL, target.ema)
    rest = restore_item(checkpoint / STATE, _rest(target, frozen))
    return TrainState(ema=model, **rest), read_json(checkpoint / DATA / "metadata")


def _sound_step(run: Path) -> int:
    """The step to resume from, the same in every process."""
    step = refusal = ""
    if is_first():
        try:
            step = str(sound_step(run, (MODEL, STATE)))
        except UserError as error:
            refusal = str(error)
    if refusal := from_first(refusal):
        raise UserError(refusal)
    return int(from_first(step))


def _goodness(metrics: dict[str, float]) -> float:
    return -metrics["loss"]


def _rest(state: TrainState, frozen: frozenset[str]) -> dict[str, Any]:
    """The part of a state that is saved beside the model."""
    trained = {part: tree for part, tree in state.params.items() if part not in frozen}
    return {"step": state.step, "params": trained, "opt_state": state.opt_state}


@contextlib.contextmanager
def _full_disk_reported(folder: Path) -> Iterator[None]:
    """Turns the many errors of a full disk into one. The step that did not fit is left out, the others are whole."""
    try:
        yield
    except Exception as error:  # TensorStore, Orbax and Python each have a type of their own for it
        full = os.strerror(errno.ENOSPC)
        if full not in str(error):
            raise
        raise UserError(f"{full} for a checkpoint in {folder}: free some and start again") from error
