"""Training stages by name."""

from collections.abc import Mapping
from typing import Any

from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.stages.config import DistillTraining, DitTraining, RecoverTraining, VaeTraining, training_class
from mobile_video_jax.stages.distill import DistillStage, from_student
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.recover import RecoverStage, from_pruned
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.train.config import TrainConfig
from mobile_video_jax.train.stage import Stage


def build_stage(values: Mapping[str, Any]) -> Stage:
    """The stage that a config's key `stage` names. Raises UserError for an unknown one and for a wrong value."""
    return stage_of(from_mapping(training_class(values), values))


def stage_of(config: TrainConfig) -> Stage:
    """The stage that a config is of; one that starts from a run takes that run's sizes."""
    match config:
        case DistillTraining():
            return DistillStage(from_student(config))
        case RecoverTraining():
            return RecoverStage(from_pruned(config))
        case DitTraining():
            return DitStage(config)
        case VaeTraining():
            return VaeStage(config)
    raise TypeError(f"{type(config).__name__} is of no training stage")
