"""The state and the position in the data that training starts from: fresh, or those of the newest checkpoint."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import optax

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import say
from mobile_video_jax.parallel.abstract import abstract
from mobile_video_jax.train.checkpoint import newest_step
from mobile_video_jax.train.checkpoints import restore_state
from mobile_video_jax.train.config import TrainConfig
from mobile_video_jax.train.run import schedule_steps
from mobile_video_jax.train.stage import Stage
from mobile_video_jax.train.state import TrainState, create_state, frozen_parts


def initial_state(
    stage: Stage,
    run: Path,
    optimizer: optax.GradientTransformation,
    shapes: TrainState,
    shardings: TrainState,
    batches: grain.DatasetIterator,
) -> TrainState:
    """The first state of this session. Where the run has a checkpoint, `batches` resume at its position.

    Raises UserError where the checkpoint's position is one in other data or in batches of other sizes.
    """
    config = stage.config
    rng, target = jax.random.key(config.seed), jax.tree.map(abstract, shapes.params, shardings.params)
    if newest_step(run) is None:
        return create_state(stage, optimizer, rng, shardings, stage.pretrained(target))
    state, saved = restore_state(run, shapes, shardings, stage.frozen)
    position, sizes = (saved["iterator"], saved["batch_sizes"]) if "batch_sizes" in saved else (saved, {})
    trees: list[Any] = [jax.tree.structure(tree) for tree in (position, batches.get_state())]
    if trees[0] != trees[1]:
        raise UserError(f"{run} was saved at a position in other data: resume it with its own data sets")
    _check_batch_sizes(run, sizes, stage.batch_sizes())
    batches.set_state(position)
    say(f"{config.stage}: goes on from step {int(state.step)}")
    _say_schedule(run, config)
    return dataclasses.replace(state, params=state.params | frozen_parts(stage, rng, shardings.params, target))


def position(stage: Stage, batches: grain.DatasetIterator) -> Any:
    """The iterator's position, for a checkpoint, and the sizes of the batches that it counts."""
    sizes, state = stage.batch_sizes(), batches.get_state()
    return {"iterator": state, "batch_sizes": sizes} if sizes else state


def _check_batch_sizes(run: Path, saved: Mapping[str, int], sizes: Mapping[str, int]) -> None:
    """Raises UserError where a saved position counts batches of other sizes than this mesh's."""
    if saved and saved != sizes:  # older versions and stages of one size save none
        raise UserError(
            f"{run} was trained in batches of {saved} clips, here they are {sizes}, and its position "
            "would mean other clips: use a mesh of as many data shards, or change token_budget"
        )


def _say_schedule(run: Path, config: TrainConfig) -> None:
    """Says what becomes of a decaying learning rate where a run gets more steps than it was begun with."""
    schedule, steps = config.optimizer.schedule, schedule_steps(run, config)
    if schedule != "constant" and config.steps > steps:
        say(
            f"{config.stage}: the {schedule} schedule ends at step {steps}, where the rate is 0; "
            f"--config.optimizer.schedule_steps={config.steps} stretches it, and the rate jumps"
        )
