"""Settings of the studies of rewards, and of guides to the right number of objects."""

import dataclasses
from typing import Literal, get_args

from mobile_video_jax.core.ranges import Count, CountOrZero, Weight
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.stages.config import CriticTraining, RewardTraining, RewardTuning
from mobile_video_jax.studies.config import ChainStudy

RewardArm = Literal[
    "latent",
    "latent-early",
    "latent-middle",
    "latent-late",
    "latent-alone",
    "latent-hinge",
    "critic-1",
    "critic-2",
    "critic-4",
    "critic-alone",
]
CountingArm = Literal["count", "count_attention", "count_best"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardStudy(ChainStudy):
    """Ways of fine-tuning a seed's transformer by a reward, beside the base and plain training for as many steps.

    The latent reward of a seed learns from its transformer's own clips, which the detector labels.
    """

    reward: RewardTraining  # training of the latent reward
    critic: CriticTraining  # training of the critic of decoded frames, one for all seeds
    tuning: RewardTuning  # fine-tuning, which an arm changes
    rollout: SampleConfig  # sampler of the clips that are labelled
    labelled: Count = 1500  # clips that the latent reward is trained on
    points: Count = 4  # measurements of a tuning, at equal distances
    curve_samples: CountOrZero = 120  # clips of each of them; 0: none is measured
    kind: Literal["reward"] = "reward"  # tells this study from the others
    arms: tuple[RewardArm, ...] = get_args(RewardArm)  # ways of fine-tuning


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountingStudy(ChainStudy):
    """Guides to the right number of objects, beside plain sampling from the same noise."""

    critic: CriticTraining  # training of the critic that counts
    count_strength: Weight = 0.3  # strength of the critic's gradient
    attention_strength: Weight = 1.0  # strength of CountDiffusion's
    kind: Literal["counting"] = "counting"  # tells this study from the others
    arms: tuple[CountingArm, ...] = get_args(CountingArm)  # guides

    @property
    def strengths(self) -> dict[str, float]:
        """The guides' strengths by their names."""
        return {"count": self.count_strength, "count_attention": self.attention_strength}
