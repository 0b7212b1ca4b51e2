"""The layers over time of the phone's U-Net, with the names of mobile_video_jax/unet/temporal.py.

Maps are [t, c, h, w]. A convolution over time is a sum of convolutions of frames; attention runs head by head, that
along time for all positions as a batch.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.phone.layers import attend
from export.phone.turn import full_tables, rotate
from export.phone.unet_layers import Frames, GatedFeedForward, Norm, Pointwise
from mobile_video_jax.cost.phone.tiles import query_chunks
from mobile_video_jax.nn.embeddings import rope_table
from mobile_video_jax.unet.config import UnetConfig
from mobile_video_jax.unet.temporal import ALONG_TIME

Grid = tuple[int, int, int]  # frames, rows, columns


class TemporalLayers(nn.Module):
    """unet.temporal.TemporalLayers, for clips of several frames."""

    def __init__(self, kind: str, level: int, config: UnetConfig, grid: Grid):
        super().__init__()
        width = config.widths[level]
        self.names = [f"layer_{k}" for k in range(max(1, config.blocks[level]))]
        for name in self.names:
            is_conv = kind.startswith("conv")
            layer = TimeConv(kind, width, config.separable) if is_conv else TimeAttention(kind, width, config, grid)
            self.add_module(name, layer)

    def forward(self, x: Frames) -> Frames:
        for name in self.names:
            x = self.get_submodule(name)(x)
        return x


class TimeConv(nn.Module):
    """unet.temporal.TimeConv."""

    def __init__(self, kind: str, channels: int, separable: bool):
        super().__init__()
        size = 3 if kind == "conv3d" else 1
        self.padding, self.groups = size // 2, channels if separable else 1
        self.norm = Norm(channels)
        self.weight = nn.Parameter(torch.zeros(channels, 1 if separable else channels, 3, size, size))
        self.bias = None if separable else nn.Parameter(torch.zeros(channels))
        self.pointwise = Pointwise(channels, channels) if separable else None

    def forward(self, x: Frames) -> Frames:
        y = functional.silu(self.norm(x))
        past, same, future = (self._tap(frames, i) for i, frames in enumerate((y[:-1], y, y[1:])))
        nothing = torch.zeros_like(same[:1])
        z: Tensor = same + torch.cat([nothing, past]) + torch.cat([future, nothing])
        return x + (z if self.pointwise is None else self.pointwise(z))

    def _tap(self, y: Frames, tap: int) -> Frames:
        bias = self.bias if tap == 1 else None
        return functional.conv2d(y, self.weight[:, :, tap], bias, padding=self.padding, groups=self.groups)


class TimeAttention(nn.Module):
    """unet.temporal.TimeAttention."""

    def __init__(self, kind: str, width: int, config: UnetConfig, grid: Grid):
        super().__init__()
        self.kind, self.grid = kind, grid
        self.norm, self.ffn_norm, self.ffn = Norm(width), Norm(width), GatedFeedForward(width, config.ffn_ratio * width)
        self.add_module(ALONG_TIME if kind == "attention1d" else "attention", Attention(kind, width, config, grid))

    def forward(self, x: Frames) -> Frames:
        frames, rows, columns = self.grid
        tokens, y = x.flatten(2), self.norm(x).flatten(2)  # [t, c, hw]
        if self.kind == "attention1d":
            lines = y.permute(2, 1, 0)[:, :, None]
            attended = self.get_submodule(ALONG_TIME)(lines, lines)[:, :, 0].permute(2, 1, 0)
        else:
            clip = y.transpose(0, 1).reshape(1, y.shape[1], 1, -1)
            context = clip[..., : rows * columns] if self.kind == "cross" else clip
            attended = self.get_submodule("attention")(clip, context)
            attended = attended.reshape(-1, frames, rows * columns).transpose(0, 1)
        x = torch.unflatten(tokens + attended, 2, (rows, columns))
        z: Tensor = x + self.ffn(self.ffn_norm(x))
        return z


class Attention(nn.Module):
    """unet.attention.SharedAttention from [b, c, 1, n] to contexts [b, c, 1, m], whose positions are the first m."""

    cos: Tensor
    sin: Tensor

    def __init__(self, kind: str, width: int, config: UnetConfig, grid: Grid):
        super().__init__()
        frames, rows, columns = grid
        self.heads, self.head_dim = width // config.head_dim, config.head_dim
        self.kv_heads = 1 if config.multi_query else self.heads
        self.q, self.out = Pointwise(width, width), Pointwise(width, width)
        self.k, self.v = (Pointwise(width, self.kv_heads * config.head_dim) for _ in range(2))
        self.q_norm, self.k_norm = Norm(config.head_dim), Norm(config.head_dim)
        table = rope_table((frames, 1, 1) if kind == "attention1d" else grid, config.head_dim, config.rope_theta)
        tables = full_tables((torch.tensor(np.asarray(table[0])), torch.tensor(np.asarray(table[1]))))
        for name, part in zip(("cos", "sin"), tables, strict=True):
            self.register_buffer(name, part.T[None, :, None], persistent=False)
        queries = self.cos.shape[3]
        self.chunks = query_chunks(queries, rows * columns if kind == "cross" else queries)

    def forward(self, x: Frames, context: Frames) -> Frames:
        queries = self._turned(self.q(x), self.q_norm)
        keys, values = self._turned(self.k(context), self.k_norm), self.v(context)
        heads = [
            attend(
                query * self.head_dim**-0.5,
                _head(keys, i % self.kv_heads, self.head_dim).transpose(1, 3),
                _head(values, i % self.kv_heads, self.head_dim),
                None,
                self.chunks,
            )
            for i, query in enumerate(queries.split(self.head_dim, dim=1))
        ]
        y: Tensor = self.out(torch.cat(heads, 1))
        return y

    def _turned(self, x: Frames, norm: Norm) -> Frames:
        heads = norm(x.reshape(-1, self.head_dim, 1, x.shape[3]))
        count = x.shape[3]
        return rotate(heads, (self.cos[..., :count], self.sin[..., :count])).reshape(x.shape)


def _head(x: Frames, index: int, size: int) -> Frames:
    return x[:, index * size : (index + 1) * size]
