"""Published recipes of step distillation, as changes of a config."""

import dataclasses
from collections.abc import Callable
from typing import Any

from mobile_video_jax.dit.config import LoraConfig
from mobile_video_jax.stages.config import DistillTraining
from mobile_video_jax.train.config import PlayersOptimizerConfig

ADAPTER, ADAPTER_RATE = LoraConfig(rank=64, alpha=128.0), 1e-4  # SnapGen++'s (arXiv 2601.08303)


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


def few_step(config: DistillTraining) -> DistillTraining:
    """A few-step teacher: an adapter of the run in `init_from`, which is its teacher too, by distillation alone."""
    objective = dataclasses.replace(config.objective, method="kd", distance=0.0)
    optimizer = _for_adapters(config.optimizer)
    changes: dict[str, Any] = {
        "model": config.teacher_model,
        "lora": ADAPTER,
        "objective": objective,
        "optimizer": optimizer,
    }
    return dataclasses.replace(config, solver="renoise", **changes)


def kdmd(config: DistillTraining) -> DistillTraining:
    """K-DMD (SnapGen++, arXiv 2601.08303): five updates of the critic for one of the student, all weights 1.

    The student is trained whole, the paper's with an adapter.
    """
    objective = dataclasses.replace(config.objective, method="kdmd", distance=0.0)
    optimizer = dataclasses.replace(config.optimizer, generator_every=5)
    changes: dict[str, Any] = {
        "few_step_lora": ADAPTER,
        "critic_lora": ADAPTER,
        "objective": objective,
        "optimizer": optimizer,
    }
    return dataclasses.replace(config, solver="renoise", **changes)


def fine_tuned(config: DistillTraining) -> DistillTraining:
    """Adversarial fine-tuning by data alone (SnapGen-V, arXiv 2412.10494): flow matching kept, no guidance, images too.

    The teacher only lends the discriminator its first part. Weights and the share of images are chosen here.
    """
    objective = dataclasses.replace(
        config.objective, method="adversarial", guidance=1.0, kd=0.0, distance=0.0, flow=1.0
    )
    return dataclasses.replace(config, image_share=0.5, objective=objective)


def _for_adapters(optimizer: PlayersOptimizerConfig) -> PlayersOptimizerConfig:
    """With a learning rate of at least ADAPTER_RATE for the factors, which are Adam's."""
    if optimizer.name != "adamw":
        return optimizer
    return dataclasses.replace(optimizer, learning_rate=max(optimizer.learning_rate, ADAPTER_RATE))


RECIPES: dict[str, Callable[[DistillTraining], DistillTraining]] = {
    "dmd2": dmd2,
    "scm": scm,
    "self_forcing": self_forcing,
    "few_step": few_step,
    "kdmd": kdmd,
    "fine_tuned": fine_tuned,
}
