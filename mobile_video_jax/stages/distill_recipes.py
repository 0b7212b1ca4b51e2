"""Published recipes of step distillation, as changes of a config."""

import dataclasses
from collections.abc import Callable

from mobile_video_jax.stages.config import DistillTraining


def dmd2(config: DistillTraining) -> DistillTraining:
    """DMD2 (arXiv 2405.14867): no distillation beside it, states from noise, five updates of the critics for one.

    The discriminator reads the frozen teacher, not the critic. Its weight is the authors' 4-step recipe's.
    """
    objective = dataclasses.replace(
        config.objective, method="dmd2", kd=0.0, distance=0.0, own_states=1.0, rollout=True, adversarial=5e-3
    )
    optimizer = dataclasses.replace(config.optimizer, generator_every=5)
    return dataclasses.replace(config, solver="renoise", objective=objective, optimizer=optimizer)


def scm(config: DistillTraining) -> DistillTraining:
    """A continuous-time consistency model (sCM, arXiv 2410.11081)."""
    objective = dataclasses.replace(config.objective, method="consistency")
    return dataclasses.replace(config, solver="renoise", objective=objective)


def self_forcing(config: DistillTraining) -> DistillTraining:
    """Self-forcing (arXiv 2506.08009) with distribution matching, for causal students: five updates of the critic."""
    objective = dataclasses.replace(config.objective, method="dmd", kd=0.0, distance=0.0)
    optimizer = dataclasses.replace(config.optimizer, generator_every=5)
    return dataclasses.replace(config, solver="renoise", objective=objective, optimizer=optimizer)


RECIPES: dict[str, Callable[[DistillTraining], DistillTraining]] = {
    "dmd2": dmd2,
    "scm": scm,
    "self_forcing": self_forcing,
}
