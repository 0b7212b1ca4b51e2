"""State that causal layers carry from one chunk of a long clip to the next, in the linen collection "stream".

Without the collection, a call sees a whole clip. With it mutable, the first call starts a clip and returns its state;
a later call that gets that state continues the clip. Chunk by chunk equals the whole clip.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from mobile_video_jax.nn.clip_ops import pad_past

STREAM = "stream"

Frames = Shaped[Array, "b t *rest"]
MoreFrames = Shaped[Array, "b more *rest"]


def with_past(module: nn.Module, x: Frames, count: int, *, zeros: bool = False, name: str = "past") -> MoreFrames:
    """Prepends the `count` frames before x; at the start of a clip they are copies of its first frame, or zeros.

    A module that carries several arrays names each.
    """
    padded = jnp.pad(x, [(0, 0), (count, 0)] + [(0, 0)] * (x.ndim - 2)) if zeros else pad_past(x, count)
    if module.has_variable(STREAM, name):
        padded = jnp.concatenate([module.get_variable(STREAM, name), x], axis=1)
    if _streams(module):
        module.put_variable(STREAM, name, padded[:, padded.shape[1] - count :])
    return padded


def running_totals(module: nn.Module, x: Frames, *, name: str) -> MoreFrames:
    """Sums over all that came before x, since the start of the clip, then up to and with each of its items."""
    before = jnp.zeros_like(x[:, :1])
    if module.has_variable(STREAM, name):
        before = module.get_variable(STREAM, name)
    totals = jnp.concatenate([before, before + jnp.cumsum(x, axis=1)], axis=1)
    if _streams(module):
        module.put_variable(STREAM, name, totals[:, -1:])
    return totals


def frames_before(module: nn.Module, count: int) -> Int[Array, ""] | int:
    """Frames of the clip before this call, which adds `count`; 0 where it starts a clip."""
    before: jax.Array | int = module.get_variable(STREAM, "frames") if module.has_variable(STREAM, "frames") else 0
    if _streams(module):
        module.put_variable(STREAM, "frames", jnp.asarray(before + count, jnp.int32))
    return before


def continues(module: nn.Module) -> bool:
    """True where this call continues a clip; records for the next call that the clip has begun."""
    begun = module.has_variable(STREAM, "begun")
    if _streams(module):
        module.put_variable(STREAM, "begun", jnp.ones((), bool))
    return begun


def _streams(module: nn.Module) -> bool:
    return module.is_mutable_collection(STREAM) and not module.is_initializing()
