"""State that causal layers carry from one chunk of a long clip to the next, in the linen collection "stream".

Without the collection, a call sees a whole clip. With it mutable, the first call starts a clip and returns its state;
a later call that gets that state continues the clip. Chunk by chunk equals the whole clip.
"""

import flax.linen as nn
import jax.numpy as jnp

from mobile_video_jax.nn.clip_ops import Clip, Resized, pad_past

STREAM = "stream"


def with_past(module: nn.Module, x: Clip, count: int, *, zeros: bool = False) -> Resized:
    """Prepends the `count` frames before x; at the start of a clip they are copies of its first frame, or zeros."""
    padded = jnp.pad(x, [(0, 0), (count, 0), (0, 0), (0, 0), (0, 0)]) if zeros else pad_past(x, count)
    if module.has_variable(STREAM, "past"):
        padded = jnp.concatenate([module.get_variable(STREAM, "past"), x], axis=1)
    if _streams(module):
        module.put_variable(STREAM, "past", padded[:, padded.shape[1] - count :])
    return padded


def continues(module: nn.Module) -> bool:
    """True where this call continues a clip; records for the next call that the clip has begun."""
    begun = module.has_variable(STREAM, "begun")
    if _streams(module):
        module.put_variable(STREAM, "begun", jnp.ones((), bool))
    return begun


def _streams(module: nn.Module) -> bool:
    return module.is_mutable_collection(STREAM) and not module.is_initializing()
