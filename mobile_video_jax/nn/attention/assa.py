"""Adaptive sparse self-attention (SnapGen++, arXiv 2601.08303): a coarse view of the clip and a sharp one around."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mobile_video_jax.nn.attention.chunks import by_frame, chunks_of_call, key_windows, windows
from mobile_video_jax.nn.attention.config import Chunks, Grid
from mobile_video_jax.nn.attention.full import SelfAttention
from mobile_video_jax.nn.attention.layer import attend
from mobile_video_jax.nn.attention.neighbours import Spans, neighbour_attend, spans
from mobile_video_jax.nn.attention.pooling import pooled_mask, squares, strided_rope
from mobile_video_jax.nn.attention.window import window_attend
from mobile_video_jax.nn.dense import Dense, zeros
from mobile_video_jax.nn.embeddings import RopeTable, apply_rope
from mobile_video_jax.nn.module import partitioned
from mobile_video_jax.nn.norm import RMSNorm

Heads = Float[Array, "b n h d"]


class AdaptiveSparseAttention(SelfAttention):
    """g softmax(q k_c^T / sqrt d) v_c + (1 - g) near(q, k, v), with g = sigmoid(W x + b) for each token and head.

    k_c and v_c are keys and values strided by a learned convolution (the published one is 2x2, of stride 2); near is
    softmax attention of each cell of tokens to the cells around it. With g = 0 and one cell it is full attention. The
    keys k_c are normalised once more, so that logits stay bounded. Where it is causal, cells along time are chunks. A
    stream carries strided keys and values of the window, and those of `radius` chunks.
    """

    @nn.compact
    def __call__(  # type: ignore[override]
        self,
        x: Float[Array, "b n d"],
        *,
        rope: RopeTable,
        mask: Bool[Array, "b 1 n"] | None = None,
        head_mask: Float[Array, "*b h"] | None = None,
    ) -> Float[Array, "b n d"]:
        grid, stride = self.grid, self.chunks.stride
        key_mask = None if mask is None else mask[:, 0]
        q, k, v = self._projected(x, x, head_mask)
        if key_mask is not None:  # a square may hold tokens beside padding
            k, v = (y * key_mask[:, :, None, None].astype(y.dtype) for y in (k, v))
        coarse_k, coarse_v = (
            SquareConv(grid, stride, self.dtype, name=name)(y) for name, y in (("k_squares", k), ("v_squares", v))
        )
        coarse_k = RMSNorm(axis=None, dtype=self.dtype, eps=self.norm_eps, name="k_squares_norm")(coarse_k)
        coarse_k = apply_rope(coarse_k, strided_rope(rope, grid, stride))
        q, k = apply_rope(q, rope), apply_rope(k, rope)
        coarse_grid = (grid[0], grid[1] // stride, grid[2] // stride)
        coarse_mask = pooled_mask(key_mask, grid, stride)
        everywhere = _Everywhere(coarse_grid, self.chunks, name="everywhere")(q, coarse_k, coarse_v, coarse_mask)
        near = _Near(grid, self.chunks, name="near")(q, k, v, key_mask)
        share = nn.sigmoid(Dense(self.heads, ("embed", None), zeros, dtype=self.dtype, name="gate")(x))[..., None]
        return self._output(share * everywhere + (1 - share) * near, head_mask, x.shape[-1])


class SquareConv(nn.Module):
    """A convolution of each head alone over squares of stride x stride tokens; a fresh one is their mean."""

    grid: Grid
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Heads) -> Float[Array, "b low h d"]:
        heads, size = x.shape[2:]
        groups = jnp.moveaxis(squares(x, self.grid, self.stride), 2, 3)  # [b low h square d]
        shape = (heads, self.stride**2 * size, size)
        kernel = jnp.asarray(self.param("kernel", partitioned(_mean, (None, None, None)), shape), self.dtype)
        return jnp.einsum("blhi,hio->blho", groups.reshape(*groups.shape[:3], -1), kernel)


def _mean(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    heads, inputs, size = shape
    mean = jnp.tile(jnp.eye(size, dtype=dtype), (inputs // size, 1)) * (size / inputs)
    return jnp.broadcast_to(mean, (heads, inputs, size))


class _Everywhere(nn.Module):
    """Softmax attention to strided keys, on a grid of their own: of all frames, or of a window of frames."""

    grid: Grid
    chunks: Chunks

    @nn.compact
    def __call__(
        self, q: Heads, k: Float[Array, "b m h d"], v: Float[Array, "b m h d"], mask: Bool[Array, "b m"] | None
    ) -> Heads:
        if self.chunks.causal:
            return window_attend(self, q, k, v, mask, self.grid, self.chunks)
        return attend(q, k, v, None if mask is None else mask[:, None])


class _Near(nn.Module):
    """Softmax attention of cells of tokens to the cells around them."""

    grid: Grid
    chunks: Chunks

    @nn.compact
    def __call__(self, q: Heads, k: Heads, v: Heads, mask: Bool[Array, "b n"] | None) -> Heads:
        if self.chunks.causal:
            return self._causal(q, k, v, mask)
        clip_q, clip_k, clip_v = (x.reshape(len(x), *self.grid, *x.shape[2:]) for x in (q, k, v))
        valid = None if mask is None else mask.reshape(len(mask), *self.grid)
        cells = spans(self.grid[0], self.chunks.cell[0], self.chunks.radius)
        return neighbour_attend(clip_q, clip_k, clip_v, (cells, *self._in_frame()), valid).reshape(q.shape)

    def _causal(self, q: Heads, k: Heads, v: Heads, mask: Bool[Array, "b n"] | None) -> Heads:
        """Each chunk is one cell along time, which sees itself and the `radius` chunks before."""
        call, (_, height, width) = chunks_of_call(self, self.chunks, self.grid[0]), self.grid
        past = self.chunks.radius * self.chunks.frames
        queries = call.grouped(call.padded(by_frame(q, self.grid)))
        near = (windows(self, by_frame(x, self.grid), call, past, name=name) for x, name in ((k, "k"), (v, "v")))
        valid = key_windows(self, self.grid, mask, call, past, len(q)).reshape(-1, past + call.size, height, width)
        near_q, near_k, near_v = (x.reshape(-1, x.shape[2], height, width, *x.shape[4:]) for x in (queries, *near))
        [whole] = spans(call.size, call.size, 0)
        time = (whole._replace(keys=slice(0, past + call.size)),)
        out = neighbour_attend(near_q, near_k, near_v, (time, *self._in_frame()), valid)
        return call.flat(out.reshape(queries.shape)).reshape(q.shape)

    def _in_frame(self) -> tuple[Spans, Spans]:
        (_, height, width), (_, rows, columns) = self.grid, self.chunks.cell
        return spans(height, rows, self.chunks.radius), spans(width, columns, self.chunks.radius)
