"""The kinds of studies."""

from collections.abc import Callable
from typing import Any, NamedTuple

from mobile_video_jax.studies.compression import plan, run_study
from mobile_video_jax.studies.compression_report import write_study
from mobile_video_jax.studies.distillation import plan_distillation, run_distillation_study
from mobile_video_jax.studies.distillation_report import write_distillation_study
from mobile_video_jax.studies.pruning import plan_pruning, run_pruning_study
from mobile_video_jax.studies.pruning_report import write_pruning_study


class Kind(NamedTuple):
    """The functions of a study: what its cells will cost, how they are run, and what is written of them."""

    plan: Callable[..., list[dict[str, Any]]]
    run: Callable[..., list[dict[str, Any]]]
    write: Callable[..., dict[str, Any]]


# By the config's key `kind`.
KINDS = {
    "vae": Kind(plan, run_study, write_study),
    "pruning": Kind(plan_pruning, run_pruning_study, write_pruning_study),
    "distillation": Kind(plan_distillation, run_distillation_study, write_distillation_study),
}
