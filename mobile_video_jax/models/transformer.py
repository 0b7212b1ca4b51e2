"""Transformers read back from the runs of every stage that leaves one."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.models.adapter import restore_transformer
from mobile_video_jax.parallel.rules import parameter_shardings
from mobile_video_jax.stages.dit import DitStage, DitTraining
from mobile_video_jax.train.checkpoint import abstract
from mobile_video_jax.train.config import OptimizerConfig
from mobile_video_jax.train.run import read_run

# The stages whose runs hold one transformer. Their configs are DitTraining with keys of their own, as the optimizer's.
STAGES = ("dit", "recover", "distill")


def read_transformer(run: Path) -> DitStage:
    """The transformer of a run, as a stage that trains it plainly. Raises UserError for a run of another kind."""
    record = read_run(run)
    if record["stage"] not in STAGES:
        raise UserError(f"{run} is a run of stage '{record['stage']}', which holds no transformer: name another run")
    values = _known(DitTraining, record["config"])
    plain = {"optimizer": _known(OptimizerConfig, values["optimizer"]), "lora": {}}
    return DitStage(from_mapping(DitTraining, values | plain))


def _known(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(cls)}
    return {key: value for key, value in values.items() if key in names}


def restore_on(mesh: Mesh, run: Path, stage: DitStage) -> Any:
    """A run's averaged weights, an adapter's merged into its base's, each part on the devices that hold it."""
    boxed = jax.eval_shape(stage.init, jax.random.key(0))
    return restore_transformer(run, jax.tree.map(abstract, nn.unbox(boxed), parameter_shardings(boxed, mesh)))
