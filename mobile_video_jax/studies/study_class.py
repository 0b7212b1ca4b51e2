"""The config classes of the studies by their kinds."""

from collections.abc import Mapping
from typing import Any

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.studies.config import StudyConfig
from mobile_video_jax.studies.network_config import (
    AttentionStudy,
    ElasticStudy,
    LadderStudy,
    TemporalStudy,
    TokenDropStudy,
    VideoStepsStudy,
)
from mobile_video_jax.studies.reward_config import CountingStudy, RewardStudy
from mobile_video_jax.studies.shrinking_config import ArchitectureStudy, DistillationStudy, LazyStudy, PruningStudy

STUDIES: dict[str, type[Config]] = {
    "vae": StudyConfig,
    "pruning": PruningStudy,
    "distillation": DistillationStudy,
    "architectures": ArchitectureStudy,
    "reward": RewardStudy,
    "counting": CountingStudy,
    "lazy": LazyStudy,
    "elastic": ElasticStudy,
    "temporal": TemporalStudy,
    "video_steps": VideoStepsStudy,
    "attention": AttentionStudy,
    "ladder": LadderStudy,
    "token_drop": TokenDropStudy,
}


def study_class(values: Mapping[str, Any]) -> type[Config]:
    """The config class that the key `kind` names. Raises UserError for an unknown kind."""
    kind = values.get("kind")
    if kind not in STUDIES:
        raise UserError(f"kind '{kind}' is no study; choose one of {', '.join(STUDIES)}")
    return STUDIES[kind]
