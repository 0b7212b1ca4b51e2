"""Causal softmax attention: each chunk attends to itself and to a window of frames before it."""

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from mobile_video_jax.nn.attention.chunks import by_frame, chunks_of_call, key_windows, windows
from mobile_video_jax.nn.attention.config import Chunks, Grid
from mobile_video_jax.nn.attention.layer import attend

Queries = Float[Array, "b n h d"]
Keys = Float[Array, "b m h d"]


def window_attend(
    module: nn.Module, q: Queries, k: Keys, v: Keys, mask: Bool[Array, "b m"] | None, grid: Grid, chunks: Chunks
) -> Queries:
    """Softmax attention over a chunk and the `chunks.window` frames before it, whose keys and values a stream carries.

    Its cost is linear in frames. `grid` is that of the keys; those where `mask` is False are ignored.
    """
    call = chunks_of_call(module, chunks, grid[0])
    queries = call.grouped(call.padded(by_frame(q, grid)))
    keys = windows(module, by_frame(k, grid), call, chunks.window, name="k")
    values = windows(module, by_frame(v, grid), call, chunks.window, name="v")
    valid = key_windows(module, grid, mask, call, chunks.window, len(q))
    q, k, v = (x.reshape(-1, x.shape[2] * x.shape[3], *x.shape[4:]) for x in (queries, keys, values))
    out = attend(q, k, v, valid.reshape(-1, 1, valid.shape[-1]))
    return call.flat(out.reshape(queries.shape)).reshape(len(queries), -1, *q.shape[2:])
