"""The vision tower of Qwen2.5-VL (arXiv 2502.13923): patches of two frames, attention in windows, merged by four.

Tokens are in the order of merged squares: frame, square's row and column, then the patches in the square. Attention
never leaves a frame, so frames are a batch.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mobile_video_jax.nn.dense import Dense
from mobile_video_jax.nn.norm import RMSNorm
from mobile_video_jax.parallel.remat import checkpointed
from mobile_video_jax.rewards.qwen.config import VisionSizes
from mobile_video_jax.rewards.qwen.layers import Angles, GatedFeedForward, rotate

Patches = Float[Array, "b t n values"]
THETA = 10_000.0
EPS = 1e-6
MASKED = -1e9


def patches_of(video: Float[Array, "b f h w 3"], sizes: VisionSizes) -> Patches:
    """Patches of normalised frames, whose last is repeated to fill one; sides are multiples of a merged patch's."""
    p, m, tp = sizes.patch, sizes.merge, sizes.frames
    missing = -video.shape[1] % tp
    video = jnp.concatenate([video, jnp.repeat(video[:, -1:], missing, axis=1)], axis=1)
    b, f, h, w, _ = video.shape
    x = video.reshape(b, f // tp, tp, h // (m * p), m, p, w // (m * p), m, p, 3)
    x = x.transpose(0, 1, 3, 6, 4, 7, 9, 2, 5, 8)
    return x.reshape(b, f // tp, (h // p) * (w // p), 3 * tp * p * p)


def places(grid: tuple[int, int], merge: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column [n] of each patch of a grid, in the order of merged squares."""
    indices = np.indices(grid).reshape(2, grid[0] // merge, merge, grid[1] // merge, merge)
    rows, columns = indices.swapaxes(2, 3).reshape(2, -1)
    return rows, columns


class _Block(nn.Module):
    sizes: VisionSizes
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], angles: Angles, mask: Float[Array, "n n"]) -> Float[Array, "b n d"]:
        b, n, d = x.shape
        heads = self.sizes.heads
        qkv = Dense(3 * d, ("embed", "heads"), dtype=self.dtype, name="attn_qkv")(self._norm("norm1")(x))
        q, k, v = jnp.moveaxis(qkv.reshape(b, n, 3, heads, -1), 2, 0)
        q, k = rotate(q, angles), rotate(k, angles)
        logits = jnp.einsum("bnhd,bmhd->bhnm", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5 + mask
        out = jnp.einsum("bhnm,bmhd->bnhd", nn.softmax(logits).astype(v.dtype), v).reshape(b, n, d)
        x = x + Dense(d, ("heads", "embed"), dtype=self.dtype, name="attn_proj")(out)
        return x + GatedFeedForward(self.sizes.ffn, True, self.dtype, name="mlp")(self._norm("norm2")(x))

    def _norm(self, name: str) -> RMSNorm:
        return RMSNorm(dtype=self.dtype, eps=EPS, name=name)


class VisionTower(nn.Module):
    """Maps patches [b t n values] of a grid (rows, columns) to vision tokens [b t n/merge^2 out]."""

    sizes: VisionSizes
    dtype: Any

    @nn.compact
    def __call__(self, patches: Patches, grid: tuple[int, int]) -> Float[Array, "b t m out"]:
        sizes = self.sizes
        b, t, n, values = patches.shape
        x = Dense(sizes.width, (None, "embed"), use_bias=False, dtype=self.dtype, name="patch_embed_proj")(
            patches.reshape(b * t, n, values)
        )
        rows, columns = places(grid, sizes.merge)
        angles, window = jnp.asarray(_angles(rows, columns, sizes)), _window_mask(rows, columns, sizes)
        for i in range(sizes.depth):
            mask = jnp.zeros((n, n)) if i in sizes.whole else jnp.asarray(window)
            x = checkpointed(_Block, "full")(sizes, self.dtype, name=f"blocks_{i}")(x, angles, mask)
        merged = sizes.merge**2 * sizes.width
        x = RMSNorm(dtype=self.dtype, eps=EPS, name="merger_ln_q")(x).reshape(b * t, n // sizes.merge**2, merged)
        x = nn.gelu(Dense(merged, ("embed", "ffn"), dtype=self.dtype, name="merger_mlp_0")(x), approximate=False)
        x = Dense(sizes.out, ("ffn", "embed"), dtype=self.dtype, name="merger_mlp_2")(x)
        return x.reshape(b, t, -1, sizes.out)


def _angles(rows: np.ndarray, columns: np.ndarray, sizes: VisionSizes) -> np.ndarray:
    """Half of a head's pairs turn with the row, half with the column."""
    spatial = sizes.width // sizes.heads // 2
    frequencies = THETA ** (-np.arange(0, spatial, 2, dtype=np.float32) / spatial)
    turned = np.stack([rows, columns], 1)[..., None].astype(np.float32) * frequencies
    angles: np.ndarray = turned.reshape(len(rows), -1)
    return angles


def _window_mask(rows: np.ndarray, columns: np.ndarray, sizes: VisionSizes) -> np.ndarray:
    """0 between patches of one window, MASKED elsewhere."""
    side = sizes.window // sizes.merge // sizes.patch * sizes.merge
    window = rows // side * (columns.max() // side + 1) + columns // side
    return np.where(window[:, None] == window[None], 0.0, MASKED).astype(np.float32)
