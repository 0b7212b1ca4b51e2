"""The VAE's decoder in PyTorch: the modules of mobile_video_jax/vae with their names and shapes, channels last."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.pytorch import dit as torch_dit
from mobile_video_jax.nn.embeddings import rope_table
from mobile_video_jax.nn.norm import EPS
from mobile_video_jax.vae.config import Level, VaeConfig


class Stream:
    """nn.stream: `past`, what causal layers kept of the chunk before, empty where a clip starts; `kept`, of this one.

    Frames lie along `axis`.
    """

    def __init__(self, past: Mapping[str, Tensor], axis: int):
        self.past, self.axis, self.starts = past, axis, not past
        self.kept: dict[str, Tensor] = {}

    def with_past(self, name: str, x: Tensor, count: int) -> Tensor:
        """x behind the last `count` frames before it; where a clip starts these are copies of its first frame."""
        if not count:
            return x
        past = [self._frames(x, slice(1))] * count if self.starts else [self.past[name]]
        padded = torch.cat([*past, x], self.axis)
        self.kept[name] = self._frames(padded, slice(-count, None))
        return padded

    def _frames(self, x: Tensor, which: slice) -> Tensor:
        return x[(slice(None),) * self.axis + (which,)]


class Decoder(nn.Module):
    """vae.model.Decoder: latents [b, t, h, w, c], not normalised, to clips [b, t', h', w', 3] in about [-1, 1]."""

    def __init__(self, config: VaeConfig):
        super().__init__()
        self.config = config
        self.levels = config.levels(config.decoder_widths, config.decoder_depths)
        deepest = self.levels[-1].width
        self.stem = nn.Linear(config.strides.channels, deepest)
        for j in range(config.attention_blocks):
            self.add_module(f"attention_{j}", AttentionBlock(deepest, config))
        for i, level in enumerate(self.levels):
            if level.step:
                time, space = level.step
                features = level.width * time * space**2
                self.add_module(f"up_{i}", nn.Linear(self.levels[i + 1].width, features))
            if config.omni:
                self.add_module(f"image_{i}", nn.Linear(config.encoder_widths[i], level.width, bias=False))
            for name in block_names(i, level):
                self.add_module(name, ConvBlock(level.width, level.temporal))
        self.norm = nn.RMSNorm(self.levels[0].width, EPS)
        self.pixels = Conv(self.levels[0].width, 3 * config.patch**2, False)

    def forward(
        self, latents: Tensor, past: Mapping[str, Tensor] | None = None, image: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The clip of a chunk, and what the next one takes as `past`; None starts a clip, `image` is as in the VAE."""
        stream = Stream(past or {}, axis=1)
        x = self.stem(latents)
        for j in range(self.config.attention_blocks):
            x = self.get_submodule(f"attention_{j}")(x, stream, f"attention_{j}")
        for i, level in reversed(list(enumerate(self.levels))):
            if level.step:
                x = shuffle_up(self.get_submodule(f"up_{i}")(x), *level.step, starts=stream.starts)
            if image is not None:
                x = x + self.get_submodule(f"image_{i}")(image[i])
            for name in block_names(i, level):
                x = self.get_submodule(name)(x, stream, name)
        x = self.pixels(functional.silu(self.norm(x)))
        return shuffle_up(x, 1, self.config.patch, starts=True), stream.kept


def block_names(i: int, level: Level) -> list[str]:
    """The convolution blocks of level i, in order."""
    return [f"level_{i}_block_{j}" for j in range(level.depth)]


class ConvBlock(nn.Module):
    """vae.blocks.ConvBlock: x + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, width: int, temporal: bool):
        super().__init__()
        self.norm_in, self.norm_out = nn.RMSNorm(width, EPS), nn.RMSNorm(width, EPS)
        self.conv_in, self.conv_out = Conv(width, width, temporal), Conv(width, width, temporal)

    def forward(self, x: Tensor, stream: Stream, name: str) -> Tensor:
        y = self.conv_in(functional.silu(self.norm_in(x)), stream, f"{name}_conv_in")
        return x + self.conv_out(functional.silu(self.norm_out(y)), stream, f"{name}_conv_out")


class Conv(nn.Module):
    """nn.conv.Conv: a 3x3 convolution of each frame, or a causal 3x3x3 one when `temporal`."""

    def __init__(self, channels: int, features: int, temporal: bool):
        super().__init__()
        self.temporal = temporal
        self.weight = nn.Parameter(torch.zeros(features, channels, *(3,) * (3 if temporal else 2)))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor, stream: Stream | None = None, name: str = "") -> Tensor:
        padded = stream.with_past(name, x, 2) if stream is not None and self.temporal else x
        weight = self.weight if self.temporal else self.weight[:, :, None]
        return functional.conv3d(padded.movedim(-1, 1), weight, self.bias, padding=(0, 1, 1)).movedim(1, -1)


class AttentionBlock(nn.Module):
    """vae.blocks.AttentionBlock: each frame attends to itself and the `window` - 1 frames before it."""

    def __init__(self, width: int, config: VaeConfig):
        super().__init__()
        self.window, self.rope_theta = config.attention_window, config.rope_theta
        self.norm = nn.RMSNorm(width, EPS)
        self.attention = WindowAttention(width, width // config.head_dim, config.head_dim)

    def forward(self, x: Tensor, stream: Stream, name: str) -> Tensor:
        b, t, h, w, width = x.shape
        y = self.norm(x)
        past = stream.with_past(name, y, self.window - 1)
        context = torch.stack([past[:, i : i + t] for i in range(self.window)], dim=2)
        rope = self.rope(h, w)
        y = self.attention(y.reshape(b * t, h * w, width), context.reshape(b * t, self.window * h * w, width), rope)
        return x + y.reshape(x.shape)

    def rope(self, h: int, w: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines [window h w, head_dim / 2] of the context's places; the last frame's are the query's."""
        table = rope_table((self.window, h, w), self.attention.head_dim, self.rope_theta)
        cos, sin = (torch.tensor(np.asarray(part)) for part in table)
        return cos, sin


class WindowAttention(torch_dit.Attention):
    """Attention whose queries stand at the last places of the context."""

    def __init__(self, width: int, heads: int, head_dim: int):
        super().__init__(width, heads, head_dim)
        self.head_dim = head_dim

    def forward(self, x: Tensor, context: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:  # type: ignore[override]
        q, k, v = self._heads(self.q(x)), self._heads(self.k(context)), self._heads(self.v(context))
        own = rope[0][-x.shape[1] :], rope[1][-x.shape[1] :]
        q, k = torch_dit.apply_rope(self.q_norm(q), own), torch_dit.apply_rope(self.k_norm(k), rope)
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def shuffle_up(x: Tensor, time: int, space: int, *, starts: bool) -> Tensor:
    """nn.clip_ops.shuffle_up: channels to blocks of time x space x space pixels; a start's copies are dropped."""
    b, t, h, w, _ = x.shape
    x = x.reshape(b, t, h, w, time, space, space, -1).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(b, t * time, h * space, w * space, -1)[:, time - 1 if starts else 0 :]
