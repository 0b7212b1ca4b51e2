"""Settings of rewards: the latent reward's network, and fine-tuning by a reward."""

import dataclasses
from typing import Annotated, Literal, get_args

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import GuidanceScale, PositiveShare, Range, Share, Size, SizeOrZero, Weight

Aspect = Literal["alignment", "physics", "quality"]
StepsOrOwn = Annotated[int, Range(0, 1000)]


@dataclasses.dataclass(frozen=True)
class RewardConfig(Config):
    """The latent reward's network; part of RewardTraining."""

    reward_blocks: Size = 2  # the transformer's first blocks, which the reward reads
    tune_blocks: bool = True  # train these blocks as well, not the query and the layers behind it alone


@dataclasses.dataclass(frozen=True)
class CriticConfig(Config):
    """The small critic's network (rewards/vqa.py)."""

    width: Size = 64  # channels of frames' features and words
    heads: Size = 4  # attention heads
    blocks: Size = 2  # times that the words look at the clip
    chunk: SizeOrZero = 16  # frames whose features are computed at once; 0: all. Loops over chunks are slow on CPUs


@dataclasses.dataclass(frozen=True)
class TuningConfig(Config):
    """Fine-tuning by a reward (stages/reward_tuning.py): the log probability of a right clip."""

    run: str = ""  # run of configs/reward.py or critic.py, or the folder of a VLM as qwen2_5_vl:FOLDER
    steps: StepsOrOwn = 0  # Euler steps of a whole rollout; 0: those that the model is sampled in
    guidance: GuidanceScale = 0.0  # guidance scale of the rollout; 0: that of the model
    grad_steps: Annotated[int, Range(0, 1000)] = 1  # last steps of the rollout that have a gradient
    low: Share = 0.0  # least time at which a latent reward ends a rollout
    high: Share = 1.0  # greatest time at which a latent reward ends a rollout
    weight: Weight = 0.1  # weight of the reward's loss beside that of flow matching
    enough: PositiveShare = 1.0  # probability of a right clip from which on the loss is 0; 1: never
    aspects: Annotated[tuple[Aspect, ...], Range(1, 3)] = get_args(Aspect)  # aspects that a critic is asked about
    alternate: bool = True  # every second step is flow matching on real clips

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low > self.high:
            raise UserError(f"rollouts end at times from reward.low to reward.high, not from {self.low} to {self.high}")
