"""The compact U-Net for phones, with the names of mobile_video_jax/unet.

Feature maps are [t, c, h, w], frames as a batch; linear layers are 1x1 convolutions; attention runs frame by frame and
head by head. All frames have one time.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.phone.layers import attend
from export.phone.layout import PHONE
from export.phone.turn import full_tables, rotate
from export.phone.unet_layers import Frames, GatedFeedForward, Norm, Pointwise, frame_conv
from export.phone.unet_time import TemporalLayers
from export.tensors import PhoneMask
from mobile_video_jax.cost.phone.tiles import query_chunks
from mobile_video_jax.nn.embeddings import rope_table
from mobile_video_jax.unet.config import UnetConfig

Column = Float[Tensor, "1 f 1 1"]
Text = Float[Tensor, "1 e 1 s"]
Grid = tuple[int, int, int]  # frames, rows, columns


class PhoneUnet(nn.Module):
    """unet.model.Unet for latents of one shape (lt, lh, lw, c).

    Maps noisy latents [1, c, 1, s], time features [1, f, 1, 1], text states [1, e, 1, l] and the text's mask
    [1, 1, 1, l], 1 for a token and 0 for padding, to the velocity [1, c, 1, s].
    """

    inputs, outputs = ("latents", "time_features", "text", "text_mask"), ("velocity",)

    def __init__(self, config: UnetConfig, latent_shape: tuple[int, int, int, int], text_width: int):
        super().__init__()
        self.latent_shape, self.widths, self.residuals = latent_shape, config.widths, config.residuals
        frames, h, w, channels = latent_shape
        widths, levels, width = config.widths, range(len(config.widths)), config.embedding_width
        self.time_in, self.time_out = Pointwise(config.time_features, width), Pointwise(width, width)
        self.pooled_text = Pointwise(text_width, width)
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        grids = [(frames, h >> i, w >> i) for i in levels]
        skips, features = [widths[0]], widths[0]

        def add_place(name: str, inputs: int, level: int) -> None:
            self.add_module(name, Site(config, level, inputs, text_width, grids[level]))
            if name in config.temporal_layers and frames > 1:
                kind, _ = config.temporal_layers[name]
                self.add_module(f"temporal_{name}", TemporalLayers(kind, level, config, grids[level]))

        for i in levels:
            for j in range(config.residuals[i]):
                add_place(f"down_{i}_{j}", features, i)
                features = widths[i]
                skips.append(features)
            if i + 1 < len(widths):
                self.add_module(f"downsample_{i}", frame_conv(features, widths[i], config.separable, stride=2))
                skips.append(features)
        add_place("middle", features, levels[-1])
        self.middle_out = ResidualBlock(config, features, features)
        for i in reversed(levels):
            for j in range(config.residuals[i] + 1):
                add_place(f"up_{i}_{j}", features + skips.pop(), i)
                features = widths[i]
            if i:
                self.add_module(f"upsample_{i}", frame_conv(features, features, config.separable))
        self.norm_out, self.conv_out = Norm(widths[0]), nn.Conv2d(widths[0], channels, 3, padding=1)

    def forward(
        self, latents: Float[Tensor, "1 c 1 n"], time_features: Column, text: Text, text_mask: PhoneMask
    ) -> Float[Tensor, "1 c 1 n"]:
        frames, h, w, channels = self.latent_shape
        conditions = self._embedding(time_features, text, text_mask), text, PHONE.bias(text_mask)
        x = self.conv_in(latents.view(channels, frames, h, w).transpose(0, 1))
        skips, levels = [x], range(len(self.widths))
        for i in levels:
            for j in range(self.residuals[i]):
                x = self._place(f"down_{i}_{j}", x, conditions)
                skips.append(x)
            if i + 1 < len(levels):
                x = self.get_submodule(f"downsample_{i}")(x)
                skips.append(x)
        x = self.middle_out(self._place("middle", x, conditions), conditions[0])
        for i in reversed(levels):
            for j in range(self.residuals[i] + 1):
                x = self._place(f"up_{i}_{j}", torch.cat([x, skips.pop()], dim=1), conditions)
            if i:
                x = self.get_submodule(f"upsample_{i}")(functional.interpolate(x, scale_factor=2.0))
        velocity: Tensor = self.conv_out(functional.silu(self.norm_out(x)))
        return velocity.transpose(0, 1).reshape(1, channels, 1, -1)

    def _place(self, name: str, x: Frames, conditions: tuple[Column, Text, Frames]) -> Frames:
        y: Frames = self.get_submodule(name)(x, *conditions)
        return self.get_submodule(f"temporal_{name}")(y) if hasattr(self, f"temporal_{name}") else y

    def _embedding(self, time_features: Column, text: Text, mask: PhoneMask) -> Float[Tensor, "1 d 1 1"]:
        # Weights that sum to one: a sum of states might overflow fp16.
        pooled = (text * (mask / mask.sum(3, keepdim=True))).sum(3, keepdim=True)
        embedding: Tensor = self.time_out(functional.silu(self.time_in(time_features))) + self.pooled_text(pooled)
        return embedding


class Site(nn.Module):
    """A residual block, and the transformer blocks behind it."""

    def __init__(self, config: UnetConfig, level: int, inputs: int, text_width: int, grid: Grid):
        super().__init__()
        self.residual = ResidualBlock(config, inputs, config.widths[level])
        self.blocks = [f"block_{k}" for k in range(config.blocks[level])]
        for name in self.blocks:
            self.add_module(name, TransformerBlock(config, level, text_width, grid))

    def forward(self, x: Frames, embedding: Column, text: Text, bias: Frames) -> Frames:
        x = self.residual(x, embedding)
        for name in self.blocks:
            x = self.get_submodule(name)(x, text, bias)
        return x


class ResidualBlock(nn.Module):
    """unet.block.ResidualBlock."""

    def __init__(self, config: UnetConfig, inputs: int, width: int):
        super().__init__()
        inner = config.expansion * width
        self.norm_in, self.norm_out = Norm(inputs), Norm(inner)
        self.conv_in = frame_conv(inputs, inner, config.separable)
        self.embedding = Pointwise(config.embedding_width, inner)
        self.conv_out = frame_conv(inner, width, config.separable)
        self.skip = None if inputs == width else Pointwise(inputs, width)

    def forward(self, x: Frames, embedding: Column) -> Frames:
        y = self.conv_in(functional.silu(self.norm_in(x))) + self.embedding(functional.silu(embedding))
        y = self.conv_out(functional.silu(self.norm_out(y)))
        z: Tensor = y + (x if self.skip is None else self.skip(x))
        return z


class TransformerBlock(nn.Module):
    """unet.block.TransformerBlock."""

    def __init__(self, config: UnetConfig, level: int, text_width: int, grid: Grid):
        super().__init__()
        width = config.widths[level]
        has_own = config.has_self_attention(level)
        self.self_attention_norm = Norm(width) if has_own else None
        self.self_attention = Attention(config, grid, width) if has_own else None
        self.cross_attention_norm, self.ffn_norm = Norm(width), Norm(width)
        self.cross_attention = Attention(config, grid, width, text_width)
        self.ffn = GatedFeedForward(width, config.ffn_ratio * width)

    def forward(self, x: Frames, text: Text, bias: Frames) -> Frames:
        if self.self_attention is not None and self.self_attention_norm is not None:
            x = x + self.self_attention(self.self_attention_norm(x))
        x = x + self.cross_attention(self.cross_attention_norm(x), text, bias)
        z: Tensor = x + self.ffn(self.ffn_norm(x))
        return z


class Attention(nn.Module):
    """unet.attention.SharedAttention of frames to themselves, or to a context [1, e, 1, m] of `context_width`."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: UnetConfig, grid: Grid, width: int, context_width: int | None = None):
        super().__init__()
        self.grid, self.heads, self.head_dim = grid, width // config.head_dim, config.head_dim
        self.kv_heads = 1 if config.multi_query else self.heads
        self.q, self.out = Pointwise(width, width), Pointwise(width, width)
        self.k, self.v = (Pointwise(context_width or width, self.kv_heads * config.head_dim) for _ in range(2))
        self.q_norm, self.k_norm = Norm(config.head_dim), Norm(config.head_dim)
        self.is_own, (frames, rows, columns) = context_width is None, grid
        self.chunks = query_chunks(rows * columns, rows * columns) if self.is_own else 1
        self.contexts = frames if self.is_own else 1
        table = rope_table((1, rows, columns), config.head_dim, config.rope_theta)
        tables = full_tables((torch.tensor(np.asarray(table[0])), torch.tensor(np.asarray(table[1]))))
        for name, part in zip(("cos", "sin"), tables, strict=True):
            self.register_buffer(name, part.T[None, :, None], persistent=False)

    def forward(self, x: Frames, context: Text | None = None, bias: Frames | None = None) -> Frames:
        x = x.flatten(2)[:, :, None]
        context = x if context is None else context
        q = self._normalized(self.q(x), self.grid[0] * self.heads, self.q_norm) * self.head_dim**-0.5
        k = self._normalized(self.k(context), self.contexts * self.kv_heads, self.k_norm).transpose(1, 3)
        v = self._heads(self.v(context), self.contexts * self.kv_heads)
        keys, values, attended = torch.split(k, 1), torch.split(v, 1), []
        for i, query in enumerate(torch.split(q, 1)):
            frame, head = divmod(i, self.heads)
            shared = (frame * self.kv_heads if self.is_own else 0) + head % self.kv_heads
            attended.append(attend(query, keys[shared], values[shared], bias, self.chunks))
        frames = [torch.cat(attended[i : i + self.heads], 1) for i in range(0, len(attended), self.heads)]
        y: Tensor = self.out(torch.cat(frames))
        maps: Tensor = torch.unflatten(y, 3, self.grid[1:])[:, :, 0]
        return maps

    def _heads(self, x: Frames, count: int) -> Frames:
        return x.reshape(count, self.head_dim, 1, -1)

    def _normalized(self, x: Frames, count: int, norm: "Norm") -> Frames:
        heads: Tensor = norm(self._heads(x, count))
        return rotate(heads, (self.cos, self.sin)) if self.is_own else heads
