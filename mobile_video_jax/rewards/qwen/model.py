"""Qwen2.5-VL (arXiv 2502.13923): a video, then text, to the logits of the next token.

Rows are [prefix, video, suffix]: the prefix is one for all, each video has several suffixes of one padded length.
Padding comes last, where causal attention never looks back from.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mobile_video_jax.core.arrays import Video
from mobile_video_jax.rewards.qwen.config import QwenSizes
from mobile_video_jax.rewards.qwen.language import LanguageModel, Positions
from mobile_video_jax.rewards.qwen.vision import VisionTower, patches_of

# Of the pixels in [0, 1]: CLIP's, in preprocessor_config.json of every release.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class Qwen(nn.Module):
    """Logits [b q vocabulary] of the token after each suffix of ids [b q s], whose last id is at `last` [b q]."""

    sizes: QwenSizes

    @nn.compact
    def __call__(
        self,
        video: Video,
        prefix: Int[Array, "p"],
        suffix: Int[Array, "b q s"],
        last: Int[Array, "b q"],
        frame_rate: float,
    ) -> Float[Array, "b q vocabulary"]:
        sizes, dtype = self.sizes, jnp.dtype(self.sizes.dtype)
        frames, grid = _normalized(video), (video.shape[2] // sizes.vision.patch, video.shape[3] // sizes.vision.patch)
        seen = VisionTower(sizes.vision, dtype, name="visual")(patches_of(frames, sizes.vision), grid)
        language = LanguageModel(sizes.language, dtype, name="model")
        b, q, s = suffix.shape
        seen = jnp.repeat(seen.reshape(b, -1, seen.shape[-1]), q, axis=0)
        before = jnp.broadcast_to(language.embed(prefix), (b * q, prefix.shape[0], seen.shape[-1]))
        x = jnp.concatenate([before, seen, language.embed(suffix.reshape(b * q, s))], axis=1)
        rows, columns = (n // sizes.vision.merge for n in grid)
        times = seen.shape[1] // (rows * columns)
        positions = row_positions(prefix.shape[0], (times, rows, columns), s, self._interval(frame_rate))
        logits = language(x, positions, last.reshape(-1) + prefix.shape[0] + seen.shape[1])
        return logits.reshape(b, q, -1)

    def _interval(self, frame_rate: float) -> float:
        """Temporal positions from one patch of frames to the next."""
        vision = self.sizes.vision
        return vision.tokens_per_second * vision.frames / frame_rate


def row_positions(prefix: int, grid: tuple[int, int, int], suffix: int, interval: float) -> Positions:
    """Positions of a row's tokens in time, rows and columns; text counts on from the largest of the grid's sides."""

    def text(start: int, count: int) -> np.ndarray:
        return np.tile(np.arange(start, start + count), (3, 1))

    times = (np.arange(grid[0]) * interval).astype(np.int64)
    video = np.stack(np.meshgrid(times, np.arange(grid[1]), np.arange(grid[2]), indexing="ij")).reshape(3, -1) + prefix
    return np.concatenate([text(0, prefix), video, text(prefix + max(grid[1:]), suffix)], axis=1)


def resized(video: Video, sizes: QwenSizes, least: int) -> Video:
    """Clips whose sides are multiples of a merged patch's, the nearest to their own and `least`."""
    unit = sizes.vision.patch * sizes.vision.merge
    scale = max(1.0, least / min(video.shape[2:4]))
    height, width = (max(round(side * scale / unit), 1) * unit for side in video.shape[2:4])
    shape = (*video.shape[:2], height, width, 3)
    return video if shape == video.shape else jax.image.resize(video, shape, "cubic", antialias=True)


def _normalized(video: Video) -> Any:
    return ((video + 1) / 2 - jnp.asarray(MEAN)) / jnp.asarray(STD)
