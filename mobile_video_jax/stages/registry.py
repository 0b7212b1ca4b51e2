"""Training stages by name."""

from collections.abc import Mapping
from typing import Any

from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.distill import DistillStage, DistillTraining, from_student
from mobile_video_jax.stages.dit import DitStage, DitTraining
from mobile_video_jax.stages.recover import RecoverStage, RecoverTraining, from_pruned
from mobile_video_jax.stages.vae import VaeStage, VaeTraining
from mobile_video_jax.train.stage import Stage


def build_stage(values: Mapping[str, Any]) -> Stage:
    """The stage that a config's key `stage` names. Raises UserError for an unknown one or an unknown key."""
    match values.get("stage"):
        case "vae":
            return VaeStage(from_mapping(VaeTraining, values))
        case "dit":
            return DitStage(from_mapping(DitTraining, values))
        case "recover":
            return RecoverStage(from_pruned(from_mapping(RecoverTraining, values)))
        case "distill":
            return DistillStage(from_student(from_mapping(DistillTraining, values)))
        case other:
            raise UserError(f"stage '{other}' is unknown; choose one of vae, dit, recover, distill")
