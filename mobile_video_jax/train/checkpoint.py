"""One checkpoint of a run, RUN/checkpoints/STEP: finding it, and reading and writing the model in it."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json
from mobile_video_jax.core.progress import say
from mobile_video_jax.core.storage import ObjectPath, copy_folder
from mobile_video_jax.train.checksums import check_checksums, write_checksums

FOLDER, MODEL = "checkpoints", "model"


def steps(run: Path) -> list[int]:
    """The steps of the complete checkpoints of a run, in order."""
    folders = [path for path in (run / FOLDER).glob("*") if path.name.isdigit()]
    return sorted(int(path.name) for path in folders if ocp.utils.is_checkpoint_finalized(path / MODEL))


def newest_step(run: Path) -> int | None:
    """The newest complete checkpoint of a run, None where there is none."""
    return max(steps(run), default=None)


def best_step(run: Path) -> int | None:
    """The complete checkpoint of the least evaluation loss, None where none was evaluated."""
    losses = {step: _evaluation_loss(run / FOLDER / str(step)) for step in steps(run)}
    evaluated = [step for step, loss in losses.items() if math.isfinite(loss)]
    return min(evaluated, key=lambda step: losses[step], default=None)


def _evaluation_loss(checkpoint: Path) -> float:
    path = checkpoint / "metrics" / "metrics"
    return float(read_json(path, "loss")["loss"]) if path.exists() else math.inf


def checkpoint_path(run: Path, step: int | None = None) -> Path:
    """The folder of a step, or of the newest. Raises UserError where the run does not have it."""
    complete = steps(run)
    if not complete:
        raise UserError(f"{run} holds no checkpoint: train it first, or name another run")
    if step is not None and step not in complete:
        raise UserError(f"{run} holds no step {step}; it has {', '.join(map(str, complete))}")
    return run.absolute() / FOLDER / str(complete[-1] if step is None else step)


def restore_item(item: Path, target: Any) -> Any:
    """The arrays of a checkpoint's item that `target` names, sharded as it says.

    Raises UserError where they have other shapes there, or the files are damaged.
    """
    args = ocp.args.PyTreeRestore(
        item=target, restore_args=ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True
    )
    try:
        if jax.process_index() == 0:
            check_checksums(item)
        with ocp.PyTreeCheckpointer() as checkpointer:
            _check_shapes(item, ocp.PyTreeCheckpointHandler().metadata(item).tree, target)
            return checkpointer.restore(item, args=args)
    except UserError:
        raise
    except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
        raise damaged(item.parent, error) from error


def sound_step(run: Path, items: Sequence[str]) -> int:
    """The newest step whose files are as they were written; damaged ones before it are set aside, which it says.

    Raises UserError where none is sound.
    """
    complete = steps(run)
    for step in reversed(complete):
        checkpoint = checkpoint_path(run, step)
        try:
            for item in items:
                check_checksums(checkpoint / item)
        except ValueError as error:
            if step == complete[0]:
                raise damaged(checkpoint, error) from error
            aside = checkpoint.with_name(f"damaged-{step}")
            checkpoint.rename(aside)
            say(f"checkpoint {checkpoint} is damaged ({error}): it is now {aside}, and the step before is used")
            continue
        return step
    raise UserError(f"{run} holds no checkpoint: train it first, or name another run")


def _check_shapes(item: Path, stored: Any, target: Any) -> None:
    shapes = {path: leaf.shape for path, leaf in _named(stored)}
    for path, leaf in _named(target):
        if path not in shapes:
            raise UserError(f"{item} holds no {path}: it is of another model; name a run of the same config")
        if shapes[path] != leaf.shape:
            raise UserError(
                f"{item} holds {path} of shape {shapes[path]}, this config has {leaf.shape}: "
                "use the config that the run was trained with, or another run"
            )


def _named(tree: Any) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def damaged(checkpoint: Path, error: Exception) -> UserError:
    """The error for a checkpoint whose files cannot be read."""
    first_line = (str(error).splitlines() or [type(error).__name__])[0][:200]
    run = checkpoint.parents[1]
    others = [step for step in steps(run) if step != int(checkpoint.name)]
    advice = f"remove it to use step {others[-1]}" if others else "train the run anew in another folder"
    return UserError(f"checkpoint {checkpoint} is damaged ({first_line}): {advice}")


def restore_model(run: Path, target: Any, step: int | None = None) -> Any:
    """The EMA parameters of a run's newest checkpoint, or of `step`; those parts that `target` names, sharded as it is.

    Raises UserError where the run has no such checkpoint, a damaged one or one of another model.
    """
    return restore_item(checkpoint_path(run, step) / MODEL, target)


def save_model(run: Path, step: int, params: Any) -> None:
    """Writes a checkpoint that holds a model alone, as commands other than training do."""
    # Orbax copies what it writes; no more at a time than the largest array, so that a model is not held twice. On CPUs
    # it does not copy what it does not compress.
    at_once = math.ceil(max(x.nbytes for x in jax.tree.leaves(params)) / 1e9) + 1
    item = run.absolute() / FOLDER / str(step) / MODEL
    handler = ocp.PyTreeCheckpointHandler(save_concurrent_gb=at_once, use_compression=False)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(item, args=ocp.args.PyTreeSave(params))
    if jax.process_index() == 0 and not isinstance(item, ObjectPath):
        write_checksums(item)


def copy_model(run: Path, out: Path, step: int | None = None) -> None:
    """Copies a run's newest model, or that of `step`, into the run directory `out` on this machine."""
    checkpoint = checkpoint_path(run, step)
    item = out / FOLDER / checkpoint.name / MODEL
    copy_folder(checkpoint / MODEL, item)
    # Orbax tells a whole checkpoint by its name on a disk and by this file in an object store, where `out` may go.
    (item / "commit_success.txt").touch()
