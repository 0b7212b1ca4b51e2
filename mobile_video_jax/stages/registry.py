"""Training stages by the class of their config."""

from collections.abc import Mapping
from typing import Any

from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.stages.config import (
    ConvertTraining,
    CriticTraining,
    DistillTraining,
    DitTraining,
    ElasticTraining,
    LazyTraining,
    QuantiseTraining,
    RecoverTraining,
    RewardTraining,
    RewardTuning,
    TaughtTraining,
    VaeTraining,
    training_class,
)
from mobile_video_jax.stages.convert import ConvertStage
from mobile_video_jax.stages.critic import CriticStage
from mobile_video_jax.stages.distill import DistillStage
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.elastic import ElasticStage
from mobile_video_jax.stages.lazy import LazyStage
from mobile_video_jax.stages.quantise import QuantiseStage
from mobile_video_jax.stages.recover import RecoverStage
from mobile_video_jax.stages.reward import RewardStage
from mobile_video_jax.stages.reward_tuning import RewardTuningStage
from mobile_video_jax.stages.taught import TaughtStage
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.train.config import TrainConfig
from mobile_video_jax.train.stage import Stage

STAGES: dict[type[TrainConfig], type[Stage]] = {
    VaeTraining: VaeStage,
    DitTraining: DitStage,
    RecoverTraining: RecoverStage,
    QuantiseTraining: QuantiseStage,
    ConvertTraining: ConvertStage,
    DistillTraining: DistillStage,
    RewardTraining: RewardStage,
    CriticTraining: CriticStage,
    RewardTuning: RewardTuningStage,
    LazyTraining: LazyStage,
    ElasticTraining: ElasticStage,
    TaughtTraining: TaughtStage,
}


def build_stage(values: Mapping[str, Any]) -> Stage:
    """The stage that a config's key `stage` names. Raises UserError for an unknown one and for a wrong value."""
    return stage_of(from_mapping(training_class(values), values))


def stage_of(config: TrainConfig) -> Stage:
    """The stage that a config is of."""
    return STAGES[type(config)].build(config)
