"""The small critic of rewards in pixels: a network that answers questions about clips of moving shapes.

python -m launch.train --config=configs/critic.py:tiny --workdir=runs/critic --config.data=data/clips

`data` is a prepared data set of moving_shapes. --config.images=16 adds images of the package easy-vqa to each batch
(pip install -e '.[critic]').
"""

import ml_collections

from mobile_video_jax.core.config import to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.config import CriticTraining
from mobile_video_jax.train.config import OptimizerConfig

TINY = CriticTraining(
    steps=1500,
    batch_size=32,
    eval_every=250,
    checkpoint_every=500,
    optimizer=OptimizerConfig(learning_rate=2e-3, ema_decay=0.99),
)


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """The config of the one variant. Raises UserError for another."""
    if variant != "tiny":
        raise UserError(f"variant '{variant}' is unknown: there is tiny")
    return to_config_dict(TINY)
