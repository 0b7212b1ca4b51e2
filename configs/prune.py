"""How a transformer is pruned.

python -m launch.prune --model=runs/dit --data=data/latents --out=runs/pruned --config=configs/prune.py

To the paper's shares of blocks (20/28), heads (20/32) and FFN channels (6144/8192), which leave 0.49 of the blocks'
parameters, or to a budget: --config.budget.parameters=0.5 --config.budget.latency=0.6. Variants: paper, and tiny for
two CPU cores: fewer clips, which are enough to rank the units of a small model.
"""

import ml_collections

from mobile_video_jax.core.config import to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.prune.config import PruneConfig, Ratios

VARIANTS = {
    # Exact scores of blocks and heads; channels, by far the most units, to first order.
    "paper": PruneConfig(clips=256, times=8, batch_clips=16, channels="taylor"),
    # 4 of 6 blocks, 3 of 4 heads, 384 of 512 channels: half of the blocks' parameters.
    "tiny": PruneConfig(clips=16, times=4, batch_clips=16, group=64, ratios=Ratios(4 / 6, 3 / 4, 3 / 4)),
}


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """The config of a variant. Raises UserError for an unknown one."""
    if variant not in VARIANTS:
        raise UserError(f"variant '{variant}' is unknown: use one of {', '.join(VARIANTS)}")
    return to_config_dict(VARIANTS[variant])
