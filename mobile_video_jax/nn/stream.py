"""What causal layers carry from one chunk of a long clip to the next, in the linen collection "stream".

Without the collection, a call sees a whole clip. With it mutable, the first call starts a clip and leaves its state;
later calls, given that state, go on where it stopped. Chunk by chunk equals the whole.
"""

import flax.linen as nn
import jax.numpy as jnp

from mobile_video_jax.nn.clip_ops import Clip, Resized, pad_past

STREAM = "stream"


def with_past(module: nn.Module, x: Clip, count: int) -> Resized:
    """x behind the last `count` frames before it; where a clip starts these are copies of its first frame."""
    padded = pad_past(x, count)
    if module.has_variable(STREAM, "past"):
        padded = jnp.concatenate([module.get_variable(STREAM, "past"), x], axis=1)
    if _carries(module):
        module.put_variable(STREAM, "past", padded[:, padded.shape[1] - count :])
    return padded


def continues(module: nn.Module) -> bool:
    """Whether this call goes on with a clip; marks the clip as begun for the next call."""
    begun = module.has_variable(STREAM, "begun")
    if _carries(module):
        module.put_variable(STREAM, "begun", jnp.ones((), bool))
    return begun


def _carries(module: nn.Module) -> bool:
    return module.is_mutable_collection(STREAM) and not module.is_initializing()
