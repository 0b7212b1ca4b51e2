"""The kinds of studies."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mobile_video_jax.studies import (
    architectures,
    attention,
    compression,
    counting,
    distillation,
    elastic,
    ladder,
    lazy,
    pruning,
    reward,
    temporal,
    token_drop,
    video_steps,
)
from mobile_video_jax.studies.architectures_report import write_architecture_study
from mobile_video_jax.studies.attention_report import write_attention_study
from mobile_video_jax.studies.compression_report import write_study
from mobile_video_jax.studies.counting_report import write_counting_study
from mobile_video_jax.studies.distillation_report import write_distillation_study
from mobile_video_jax.studies.elastic_report import write_elastic_study
from mobile_video_jax.studies.ladder_report import write_ladder_study
from mobile_video_jax.studies.lazy_report import write_lazy_study
from mobile_video_jax.studies.pruning_report import write_pruning_study
from mobile_video_jax.studies.reward_report import write_reward_study
from mobile_video_jax.studies.temporal_report import write_temporal_study
from mobile_video_jax.studies.token_drop_report import write_token_drop_study
from mobile_video_jax.studies.video_steps_report import write_video_steps_study


class Kind(NamedTuple):
    """The functions of a study: its cells by name, what they will cost, how they are run, what is written of them."""

    cells: Callable[..., Mapping[str, Any]]
    plan: Callable[..., list[dict[str, Any]]]
    run: Callable[..., list[dict[str, Any]]]
    write: Callable[..., dict[str, Any]]


# By the config's key `kind`.
KINDS = {
    "vae": Kind(compression.cells, compression.plan, compression.run_study, write_study),
    "pruning": Kind(pruning.cells, pruning.plan_pruning, pruning.run_pruning_study, write_pruning_study),
    "distillation": Kind(
        distillation.cells,
        distillation.plan_distillation,
        distillation.run_distillation_study,
        write_distillation_study,
    ),
    "architectures": Kind(
        architectures.cells,
        architectures.plan_architectures,
        architectures.run_architecture_study,
        write_architecture_study,
    ),
    "reward": Kind(reward.cells, reward.plan_reward, reward.run_reward_study, write_reward_study),
    "counting": Kind(counting.cells, counting.plan_counting, counting.run_counting_study, write_counting_study),
    "lazy": Kind(lazy.cells, lazy.plan_lazy, lazy.run_lazy_study, write_lazy_study),
    "elastic": Kind(elastic.cells, elastic.plan_elastic, elastic.run_elastic_study, write_elastic_study),
    "temporal": Kind(temporal.cells, temporal.plan_temporal, temporal.run_temporal_study, write_temporal_study),
    "video_steps": Kind(
        video_steps.cells, video_steps.plan_video_steps, video_steps.run_video_steps_study, write_video_steps_study
    ),
    "attention": Kind(attention.cells, attention.plan_attention, attention.run_attention_study, write_attention_study),
    "token_drop": Kind(
        token_drop.cells, token_drop.plan_token_drop, token_drop.run_token_drop_study, write_token_drop_study
    ),
    "ladder": Kind(ladder.cells, ladder.plan_ladder, ladder.run_ladder_study, write_ladder_study),
}
