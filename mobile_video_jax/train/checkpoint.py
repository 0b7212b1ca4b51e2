"""Checkpoints: the model (averaged weights), the rest of the state, and the data position, saved together."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import copy_folder
from mobile_video_jax.train.state import TrainState

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of one run, RUN/checkpoints/STEP/{model,state,data}; saving runs beside training.

    The `keep` newest are kept, and the one of the least evaluation loss. Parts of the parameters in `frozen` are left
    out: they are what they were given as.
    """

    def __init__(self, run: Path, *, keep: int, frozen: frozenset[str] = frozenset()):
        self._frozen = frozen
        goodness = lambda metrics: -metrics["loss"]
        kept = [
            policies.LatestN(keep),
            policies.BestN(get_metric_fn=goodness, n=1, keep_checkpoints_without_metrics=False),
        ]
        options = ocp.CheckpointManagerOptions(
            best_fn=goodness, preservation_policy=policies.AnyPreservationPolicy(kept), cleanup_tmp_directories=True
        )
        self._folder = run.absolute() / FOLDER
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    @property
    def latest(self) -> int | None:
        """The newest complete step, None where there is none."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """The complete step of the least evaluation loss, None where there is none."""
        return self._manager.best_step()

    def path(self, step: int) -> Path:
        """The folder of a step."""
        return self._folder / str(step)

    def save(self, state: TrainState, data_state: Any, loss: float = math.inf) -> None:
        """Starts saving the state and the iterator's JSON-able position; returns before it is on disk.

        `loss` is that of an evaluation of this state, infinite where there was none.
        """
        rest = {"step": state.step, "params": self._trained(state.params), "opt_state": state.opt_state}
        items = ocp.args.Composite(
            model=ocp.args.StandardSave(state.ema),
            state=ocp.args.StandardSave(rest),
            data=ocp.args.JsonSave(data_state),
        )
        with _full_disk_told(self._folder):
            self._manager.save(int(state.step), args=items, metrics={"loss": loss})

    def restore(self, shapes: TrainState, shardings: TrainState) -> tuple[TrainState, Any]:
        """The newest state without frozen parts, laid out as `shardings` say, and the data position."""
        step = self.latest
        target = jax.tree.map(abstract, shapes, shardings)
        rest = {"step": target.step, "params": self._trained(target.params), "opt_state": target.opt_state}
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    model=ocp.args.StandardRestore(target.ema),
                    state=ocp.args.StandardRestore(rest),
                    data=ocp.args.JsonRestore(),
                ),
            )
        except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
            raise damaged(self._folder / str(step), error) from error
        return TrainState(ema=restored["model"], **restored["state"]), restored["data"]

    def _trained(self, params: Any) -> Any:
        return {part: tree for part, tree in params.items() if part not in self._frozen}

    def close(self) -> None:
        """Waits until everything is on disk."""
        with _full_disk_told(self._folder):
            self._manager.wait_until_finished()
        self._manager.close()


@contextlib.contextmanager
def _full_disk_told(folder: Path) -> Iterator[None]:
    """Turns the many errors of a full disk into one. The step that did not fit is left out, the others are whole."""
    try:
        yield
    except Exception as error:  # TensorStore, Orbax and Python each have a type of their own for it
        if "No space left" not in str(error):
            raise
        raise UserError(f"no space left for a checkpoint in {folder}: free some and start again") from error


def abstract(shape: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    """The shape and placement that a restored array shall have."""
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


def damaged(path: Path, error: Exception) -> UserError:
    """The error for a checkpoint that cannot be read."""
    first_line = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"checkpoint {path} is damaged or of another model ({first_line}): delete it to use an older one")


def newest_step(run: Path) -> int | None:
    """The newest complete checkpoint of a run, without opening it."""
    steps = [path for path in (run / FOLDER).glob("*") if path.name.isdigit()]
    whole = ocp.utils.is_checkpoint_finalized
    return max((int(step.name) for step in steps if whole(step / "model")), default=None)


def restore_model(run: Path, target: Any) -> Any:
    """The averaged weights of a run's newest checkpoint, or those parts that `target` names, placed as it says.

    Raises UserError where the run has no checkpoint, a damaged one or one of another model.
    """
    step = newest_step(run)
    if step is None:
        raise UserError(f"{run} holds no checkpoint: train it first, or name another run")
    path = run.absolute() / FOLDER / str(step) / "model"
    placed = ocp.checkpoint_utils.construct_restore_args(target)
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            args = ocp.args.PyTreeRestore(item=target, restore_args=placed, partial_restore=True)
            restored = checkpointer.restore(path, args=args)
    except Exception as error:  # see Checkpoints.restore
        raise damaged(path.parent, error) from error
    # A partial restore hands back the description of what it does not find.
    missing = [
        jax.tree_util.keystr(where, simple=True, separator="/")
        for where, leaf in jax.tree_util.tree_leaves_with_path(restored)
        if isinstance(leaf, jax.ShapeDtypeStruct)
    ]
    if missing:
        raise UserError(f"{run} holds no {missing[0]}: it is a run of another model; name one of the same config")
    return restored


def save_model(run: Path, step: int, params: Any) -> None:
    """Writes a checkpoint that holds a model alone: what a command other than training leaves."""
    # Orbax copies what it writes; no more at a time than the largest array, so that a model is not held twice.
    at_once = math.ceil(max(x.nbytes for x in jax.tree.leaves(params)) / 1e9) + 1
    with ocp.Checkpointer(ocp.StandardCheckpointHandler(save_concurrent_gb=at_once)) as checkpointer:
        checkpointer.save(run.absolute() / FOLDER / str(step) / "model", args=ocp.args.StandardSave(params))


def copy_model(run: Path, out: Path) -> None:
    """Copies a run's newest model into the run directory `out` on this machine."""
    model = Path(FOLDER, str(newest_step(run)), "model")
    copy_folder(run / model, out / model)
    # Orbax tells a whole checkpoint by its name on a disk and by this file in an object store, where `out` may go.
    (out / model / "commit_success.txt").touch()
