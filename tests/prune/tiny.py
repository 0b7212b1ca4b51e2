"""A tiny transformer, its random parameters and a few noisy clips, shared by the tests of pruning."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.prune.calibration import Calibration, calibration
from mobile_video_jax.prune.costs import LinearCost
from mobile_video_jax.prune.units import Units
from tests.nets import normal, params_like

CONFIG = DitConfig(width=12, depth=3, heads=3, head_dim=6, ffn=16, time_features=8)
# Norms of queries and keys and RoPE across heads, as LTX-Video's transformer has them.
ACROSS_HEADS = dataclasses.replace(
    CONFIG, width=18, rope_scale=(0.32, 32.0, 32.0), rope_theta=1e4, qk_norm_across_heads=True, qk_norm_eps=1e-5
)
# Every kind of attention, two of them at half of the resolution.
LAYOUT = dataclasses.replace(
    CONFIG, depth=4, layout=(("lcha", 1), ("chunked", 2), ("ssa", 2), ("full", 1)), chunk_frames=1, attention_stride=1
)
DIT = Dit(CONFIG)
UNITS = Units(CONFIG, 4)
# Parameters of the paper's server by hand: D 2048, heads of 64 channels.
LARGE = LinearCost(rest=43e6, block=1e5, heads=4 * 2048 * 64.0, cross_heads=4 * 2048 * 64.0, ffn=2 * 2048.0)


@functools.cache
def clips(seed: int = 0, times: int = 2) -> Calibration:
    """Two clips of 2x2x2 latents at two times each, the second one's last frame padding."""
    mask = np.ones((2, 2, 2, 2), bool)
    mask[1, 1] = False
    text_mask = jnp.asarray(np.arange(3) < np.array([[2], [3]]))
    batch = {"latents": normal(seed, 2, 2, 2, 2, 4), "text": normal(seed + 1, 2, 3, 5), "text_mask": text_mask}
    return calibration({**batch, "latent_mask": mask}, jax.random.key(seed), times=times, shift=1.0)


@functools.cache
def params(config: DitConfig = CONFIG) -> dict:
    return params_like(Dit(config), *clips(), scale=0.4)
