"""Sampling steps that reuse outputs of the step before, or leave modules out; gates are LazyDiT's (arXiv 2412.12444).

python -m launch.lazy --model=runs/dit --target=0.3 --out=runs/lazy --config=configs/lazy.py:paper

Variants: paper (gates of 500 steps of AdamW at 1e-4 with batches of 256, as published) and tiny (two CPU cores).
"""

import ml_collections

from mobile_video_jax.core.config import to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.config import LazyTraining
from mobile_video_jax.train.config import OptimizerConfig

PAPER = OptimizerConfig(learning_rate=1e-4, schedule="constant", warmup=0.0, weight_decay=0.0, ema_decay=0.0)
VARIANTS = {
    "paper": LazyTraining(optimizer=PAPER, steps=500, batch_size=256, eval_every=100, checkpoint_every=100),
    "tiny": LazyTraining(
        optimizer=OptimizerConfig(learning_rate=1e-4, schedule="constant", warmup=0.0, weight_decay=0.0, ema_decay=0.9),
        steps=150,
        batch_size=32,
        eval_every=50,
        checkpoint_every=50,
        score_clips=8,
    ),
}


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """The config of a variant. Raises UserError for an unknown one."""
    if variant not in VARIANTS:
        raise UserError(f"variant '{variant}' is unknown: use one of {', '.join(VARIANTS)}")
    return to_config_dict(VARIANTS[variant])
