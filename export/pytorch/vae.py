"""The VAE's decoder in PyTorch, with the names and shapes of mobile_video_jax/vae, channels last."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.pytorch.attention import Attention, apply_rope
from export.tensors import Features, Latents, Video
from mobile_video_jax.nn.config import EPS
from mobile_video_jax.nn.embeddings import rope_table
from mobile_video_jax.vae.config import Level, VaeConfig

# Cosines and sines of the angles of each position of a context.
ContextRope = tuple[Float[Tensor, "m half"], Float[Tensor, "m half"]]


class CausalState:
    """The last input frames of each causal layer, by its name: `past` of the chunk before, `kept` of this one.

    `past` is empty where a clip starts. Frames lie along `axis`; in JAX this is nn.stream.
    """

    def __init__(self, past: Mapping[str, Tensor], axis: int):
        self.past, self.axis, self.starts = past, axis, not past
        self.kept: dict[str, Tensor] = {}

    def with_past(self, name: str, x: Tensor, count: int) -> Tensor:
        """Prepends the `count` frames before x, or copies of its first frame where a clip starts."""
        if not count:
            return x
        past = [self._slice(x, slice(1))] * count if self.starts else [self.past[name]]
        padded = torch.cat([*past, x], self.axis)
        self.kept[name] = self._slice(padded, slice(-count, None))
        return padded

    def _slice(self, x: Tensor, frames: slice) -> Tensor:
        return x[(slice(None),) * self.axis + (frames,)]


class Decoder(nn.Module):
    """vae.model.Decoder: maps latents, not normalised, to clips in about [-1, 1]."""

    def __init__(self, config: VaeConfig):
        super().__init__()
        self.config = config
        self.levels = config.levels(config.decoder_widths, config.decoder_depths)
        deepest = self.levels[-1].width
        self.stem = nn.Linear(config.of_network.channels, deepest)
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
        self, latents: Latents, past: Mapping[str, Tensor] | None = None, image: Sequence[Tensor] | None = None
    ) -> tuple[Video, dict[str, Tensor]]:
        """Decodes a chunk of latent frames; returns its clip and the `past` of the next chunk.

        No `past` starts a clip. `image` holds the encoder's features of a conditioning frame, as in the VAE.
        """
        state = CausalState(past or {}, axis=1)
        x = self.stem(shuffle_up(latents, 1, self.config.strides.patch, starts=True))
        for j in range(self.config.attention_blocks):
            x = self.get_submodule(f"attention_{j}")(x, state, f"attention_{j}")
        for i, level in reversed(list(enumerate(self.levels))):
            if level.step:
                x = shuffle_up(self.get_submodule(f"up_{i}")(x), *level.step, starts=state.starts)
            if image is not None:
                x = x + self.get_submodule(f"image_{i}")(image[i])
            for name in block_names(i, level):
                x = self.get_submodule(name)(x, state, name)
        x = self.pixels(functional.silu(self.norm(x)))
        return shuffle_up(x, 1, self.config.patch, starts=True), state.kept


def block_names(i: int, level: Level) -> list[str]:
    """The convolution blocks of level i, in order."""
    return [f"level_{i}_block_{j}" for j in range(level.depth)]


class ConvBlock(nn.Module):
    """vae.blocks.ConvBlock: x + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, width: int, temporal: bool):
        super().__init__()
        self.norm_in, self.norm_out = nn.RMSNorm(width, EPS), nn.RMSNorm(width, EPS)
        self.conv_in, self.conv_out = Conv(width, width, temporal), Conv(width, width, temporal)

    def forward(self, x: Features, state: CausalState, name: str) -> Features:
        y = self.conv_in(functional.silu(self.norm_in(x)), state, f"{name}_conv_in")
        residual: Tensor = self.conv_out(functional.silu(self.norm_out(y)), state, f"{name}_conv_out")
        return x + residual


class Conv(nn.Module):
    """nn.conv.Conv: a 3x3 convolution of each frame, or a causal 3x3x3 one when `temporal`."""

    def __init__(self, channels: int, features: int, temporal: bool):
        super().__init__()
        self.temporal = temporal
        self.weight = nn.Parameter(torch.zeros(features, channels, *(3,) * (3 if temporal else 2)))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(
        self, x: Features, state: CausalState | None = None, name: str = ""
    ) -> Float[Tensor, "b t h w features"]:
        padded = state.with_past(name, x, 2) if state is not None and self.temporal else x
        weight = self.weight if self.temporal else self.weight[:, :, None]
        return functional.conv3d(padded.movedim(-1, 1), weight, self.bias, padding=(0, 1, 1)).movedim(1, -1)


class AttentionBlock(nn.Module):
    """vae.blocks.AttentionBlock: each frame attends to itself and the `window` - 1 frames before it."""

    def __init__(self, width: int, config: VaeConfig):
        super().__init__()
        self.window, self.rope_theta = config.attention_window, config.rope_theta
        self.norm = nn.RMSNorm(width, EPS)
        self.attention = WindowAttention(width, width // config.head_dim, config.head_dim)

    def forward(self, x: Features, state: CausalState, name: str) -> Features:
        b, t, h, w, width = x.shape
        y = self.norm(x)
        past = state.with_past(name, y, self.window - 1)
        context = torch.stack([past[:, i : i + t] for i in range(self.window)], dim=2)
        rope = self.rope(h, w)
        queries, keys = y.reshape(b * t, h * w, width), context.reshape(b * t, self.window * h * w, width)
        attended: Tensor = self.attention(queries, keys, rope)
        return x + attended.reshape(x.shape)

    def rope(self, h: int, w: int) -> ContextRope:
        """Cosines and sines of the m = window h w positions of the context; the last frame's are the queries'."""
        table = rope_table((self.window, h, w), self.attention.head_dim, self.rope_theta)
        cos, sin = (torch.tensor(np.asarray(part)) for part in table)
        return cos, sin


class WindowAttention(Attention):
    """Attention of queries at the last positions of their context."""

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "b n d"], context: Float[Tensor, "b m d"], rope: ContextRope
    ) -> Float[Tensor, "b n d"]:
        q, k, v = self._heads(self.q(x)), self._heads(self.k(context)), self._heads(self.v(context))
        query_rope = rope[0][-x.shape[1] :], rope[1][-x.shape[1] :]
        q, k = apply_rope(self.q_norm(q), query_rope), apply_rope(self.k_norm(k), rope)
        attended: Tensor = self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return attended


def shuffle_up(x: Features, time: int, space: int, *, starts: bool) -> Float[Tensor, "b t2 h2 w2 c2"]:
    """nn.clip_ops.shuffle_up: moves channels to blocks of time x space x space pixels.

    Where a clip starts, the time - 1 copies of its first frame are dropped.
    """
    b, t, h, w, _ = x.shape
    x = x.reshape(b, t, h, w, time, space, space, -1).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(b, t * time, h * space, w * space, -1)[:, time - 1 if starts else 0 :]
