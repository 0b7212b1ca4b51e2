"""Shapes of a Qwen2.5-VL's parameters."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobile_video_jax.rewards.qwen.config import QwenSizes
from mobile_video_jax.rewards.qwen.model import Qwen


def init_qwen(sizes: QwenSizes, rng: Any) -> Any:
    """Random parameters, each with its logical axis names."""
    side = sizes.vision.patch * sizes.vision.merge
    ids = jnp.zeros((1, 1, 1), jnp.int32)
    video = jnp.zeros((1, 1, side, side, 3))
    return Qwen(sizes).init(rng, video, jnp.zeros(1, jnp.int32), ids, ids[..., 0], 1.0)["params"]


def qwen_shapes(sizes: QwenSizes) -> Any:
    """The shapes of the parameters."""
    return nn.unbox(jax.eval_shape(lambda: init_qwen(sizes, jax.random.key(0))))
