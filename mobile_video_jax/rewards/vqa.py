"""A small network that answers questions about clips: the critic of rewards in the shape world.

Frames are read in chunks, whose activations are computed again in the backward pass, so that the gradient in the pixels
of a long clip takes the memory of a chunk.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mobile_video_jax.core.arrays import Video
from mobile_video_jax.nn.attention.layer import Attention
from mobile_video_jax.nn.clip_ops import shuffle_down
from mobile_video_jax.nn.conv import Conv
from mobile_video_jax.nn.dense import Dense, FeedForward, xavier
from mobile_video_jax.nn.module import apply
from mobile_video_jax.nn.norm import RMSNorm
from mobile_video_jax.rewards.config import CriticConfig
from mobile_video_jax.rewards.questions import ANSWERS, BUCKETS

Features = Float[Array, "b t rows columns d"]
Words = Int[Array, "b q s"]
LogProbabilities = Float[Array, "b q answers"]


class FrameEncoder(nn.Module):
    """Features of each frame at an eighth of its height and width."""

    width: int

    @nn.compact
    def __call__(self, video: Video) -> Features:
        x: Any = video
        for level, width in enumerate((self.width // 4, self.width // 2, self.width)):
            x = Conv(width, False, name=f"conv_{level}")(shuffle_down(x, 1, 2))
            x = nn.gelu(RMSNorm(axis=None, name=f"norm_{level}")(x), approximate=True)
        features: Features = x
        return features


class _ReaderBlock(nn.Module):
    """The questions' words look at the clip and at each other."""

    heads: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b q s d"], clip: Float[Array, "b n d"], mask: Float[Array, "b q s"]
    ) -> Float[Array, "b q s d"]:
        b, q, s, d = x.shape
        looking = Attention(self.heads, d // self.heads, name="clip_attention")
        x = x + looking(RMSNorm(name="clip_norm")(x).reshape(b, q * s, d), clip).reshape(x.shape)
        reading = Attention(self.heads, d // self.heads, name="word_attention")
        words = RMSNorm(name="word_norm")(x).reshape(b * q, s, d)
        x = x + reading(words, mask=(mask > 0).reshape(b * q, 1, s)).reshape(x.shape)
        hidden = FeedForward(4 * d, name="ffn")(RMSNorm(name="ffn_norm")(x).reshape(b, q * s, d))
        return x + hidden.reshape(x.shape)


class Reader(nn.Module):
    """Log probabilities of the answers to each clip's questions."""

    config: CriticConfig

    @nn.compact
    def __call__(self, features: Features, words: Words) -> LogProbabilities:
        width, heads = self.config.width, self.config.heads
        moving = nn.gelu(Conv(width, True, name="motion")(features), approximate=True)
        grid = features.shape[1:4]
        places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in grid), indexing="ij"), -1).astype(np.float32)
        seen = jnp.concatenate([features, moving, jnp.broadcast_to(places, (*features.shape[:4], 3))], axis=-1)
        clip = Dense(width, (None, "embed"), name="clip_in")(seen.reshape(seen.shape[0], -1, seen.shape[-1]))
        clip = clip + FeedForward(4 * width, name="clip_ffn")(clip)
        table = self.param("words", nn.initializers.normal(1.0), (BUCKETS, width))
        order = self.param("order", nn.initializers.normal(0.3), (words.shape[2], width))
        mask = (words > 0).astype(jnp.float32).at[..., 0].set(1.0)
        x = table[words] + order
        for i in range(self.config.blocks):
            x = _ReaderBlock(heads, name=f"block_{i}")(x, clip, mask)
        pooled = jnp.sum(x * mask[..., None], axis=2) / jnp.sum(mask, axis=2)[..., None]
        hidden = nn.gelu(Dense(width, ("embed", None), name="in")(RMSNorm(name="norm")(pooled)), approximate=True)
        logits = Dense(len(ANSWERS), ("embed", None), xavier, name="answers")(hidden)
        return jax.nn.log_softmax(logits)


@dataclasses.dataclass(frozen=True)
class Vqa:
    """The small critic. Parameters: "frames" and "reader"."""

    config: CriticConfig

    @property
    def _frames(self) -> FrameEncoder:
        return FrameEncoder(self.config.width)

    @property
    def _reader(self) -> Reader:
        return Reader(self.config)

    def init(self, rng: jax.Array, video: Video, words: Words) -> Any:
        """Random parameters, each with its logical axis names."""
        frames = self._frames.init(rng, video[:, :1])["params"]
        features = jnp.zeros((*video.shape[:2], *(side // 8 for side in video.shape[2:4]), self.config.width))
        return {"frames": frames, "reader": self._reader.init(rng, features, words)["params"]}

    def log_probabilities(self, params: Any, video: Video, words: Words) -> LogProbabilities:
        """Log probabilities of ANSWERS for questions about clips in [-1, 1]."""
        log_p: LogProbabilities = apply(self._reader, params["reader"], self._features(params["frames"], video), words)
        return log_p

    def _features(self, params: Any, video: Video) -> Features:
        chunk = self.config.chunk
        read = jax.checkpoint(lambda frames: apply(self._frames, params, frames))
        if not 0 < chunk < video.shape[1]:
            features: Features = read(video)
            return features
        whole = video.shape[1] // chunk * chunk
        chunks = jnp.moveaxis(video[:, :whole].reshape(video.shape[0], -1, chunk, *video.shape[2:]), 1, 0)
        in_chunks = jnp.moveaxis(jax.lax.map(read, chunks), 0, 1).reshape(video.shape[0], whole, *_tail(video), -1)
        if whole == video.shape[1]:
            return in_chunks
        return jnp.concatenate([in_chunks, read(video[:, whole:])], axis=1)


def _tail(video: Video) -> tuple[int, int]:
    return video.shape[2] // 8, video.shape[3] // 8
