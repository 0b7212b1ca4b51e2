"""Fine-tuning of a transformer by a reward: rollouts from noise, whose last steps have a gradient.

python -m launch.train --config=configs/reward_tuning.py:tiny --workdir=runs/tuned --config.init_from=runs/dit \
    --config.data=data/latents --config.reward.run=runs/reward

A latent reward (configs/reward.py) ends a rollout at a random time from reward.low to reward.high, and one step has a
gradient. Every second step is flow matching on `data`; for a model of few steps, which is not trained at other times,
set --config.reward.alternate=false. --config.lora.rank=16 trains an adapter alone. Variants: tiny (two CPU cores),
small (one accelerator), wan (Wan 2.1 1.3B: rollouts of 40 steps as published).
"""

import dataclasses

import ml_collections

from configs import reward
from mobile_video_jax.core.config import to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.rewards.config import TuningConfig
from mobile_video_jax.stages.config import RewardTuning
from mobile_video_jax.train.config import OptimizerConfig

TINY = RewardTuning(
    steps=200,
    batch_size=32,
    eval_every=50,
    eval_batches=2,
    checkpoint_every=50,
    caption_dropout=0.1,
    reward=TuningConfig(steps=10, guidance=3.0),
    optimizer=OptimizerConfig(learning_rate=2e-4, schedule="constant", weight_decay=0.0, ema_decay=0.95),
)
# The generator's rate of PRFL.
SMALL = RewardTuning(
    steps=2_000, batch_size=64, optimizer=OptimizerConfig(learning_rate=5e-6, schedule="constant", weight_decay=0.0)
)
WAN = dataclasses.replace(
    SMALL, **reward.like("wan"), batch_size=16, loader_threads=16, auto=True, reward=TuningConfig(steps=40)
)
VARIANTS = {"tiny": TINY, "small": SMALL, "wan": WAN}


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """The config of a variant. Raises UserError for an unknown one."""
    if variant not in VARIANTS:
        raise UserError(f"variant '{variant}' is unknown: use one of {', '.join(VARIANTS)}")
    return to_config_dict(VARIANTS[variant])
