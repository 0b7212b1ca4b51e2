"""LTX-Video's decoder in PyTorch: the modules of vae/ltx/model.py with their names and shapes, channels last."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.pytorch.dit import time_features
from mobile_video_jax.vae.ltx.config import PATCH, LtxVaeConfig
from mobile_video_jax.vae.ltx.layers import EPS, TIME_FEATURES, fixed_noise


class Decoder(nn.Module):
    """vae.ltx.Decoder: latents [b, t, h, w, c], not normalised, to clips [b, t', h', w', 3] in about [-1, 1].

    `order` names the blocks and steps up in the order in which they run.
    """

    def __init__(self, config: LtxVaeConfig):
        super().__init__()
        self.config = config
        self.order: list[str] = []
        width = config.decoder_widths[-1]
        self.conv_in = LtxConv(config.channels, width, config.decoder_causal)
        self._add_level("mid", width, config.decoder_depths[-1], config.noise[-1])
        for i, level in enumerate(config.up_levels()):
            if width != level.width * level.factor:
                self._add(f"up_{i}_conv_in", ResBlock(f"up_{i}_conv_in", width, level.width, config, level.noise))
                width = level.width
            if level.up:
                self._add(f"up_{i}_upsample", Upsample(width, level.factor, level.residual, config.decoder_causal))
                width //= level.factor
            self._add_level(f"up_{i}", width, level.depth, level.noise)
        if config.timestep_conditioning:
            self.timestep_scale_multiplier = nn.Parameter(torch.tensor(1000.0))
            self.time = TimeEmbedding(2 * width)
            self.scale_shift_table = nn.Parameter(torch.zeros(2, width))
        self.conv_out = LtxConv(width, 3 * PATCH**2, config.decoder_causal)

    def forward(self, latents: Tensor) -> Tensor:
        if self.config.timestep_conditioning:
            share = self.config.decode_noise_scale
            latents = (1 - share) * latents + share * latent_noise(*latents.shape[1:])
        x = self.conv_in(latents)
        for name in self.order:
            x = self.get_submodule(name)(x, self.changes(name))
        x = changed(functional.rms_norm(x, x.shape[-1:], eps=EPS), self.changes(""))
        return patches_to_pixels(self.conv_out(functional.silu(x)), PATCH)

    def changes(self, name: str) -> Tensor | None:
        """Shifts and scales [k, c] that the timestep asks of a block's norms, or with no name of the last norm."""
        level, of_block, _ = name.rpartition("_block_")
        if not self.config.timestep_conditioning or (name and not of_block):
            return None
        time = self.config.decode_timestep * self.timestep_scale_multiplier / 1000
        embedded: Tensor = self.get_submodule(f"{level}_time" if name else "time")(time)
        table: Any = self.get_submodule(name).scale_shift_table
        return embedded.unflatten(0, table.shape) + table

    def _add_level(self, level: str, width: int, depth: int, noise: bool) -> None:
        told = self.config.timestep_conditioning
        if told:
            self.add_module(f"{level}_time", TimeEmbedding(4 * width))
        for j in range(depth):
            name = f"{level}_block_{j}"
            self._add(name, ResBlock(name, width, width, self.config, noise, told))

    def _add(self, name: str, module: nn.Module) -> None:
        self.add_module(name, module)
        self.order.append(name)


class LtxConv(nn.Module):
    """vae.ltx_layers.LtxConv without strides."""

    def __init__(self, channels: int, features: int, causal: bool, size: int = 3):
        super().__init__()
        # Copies of the first and of the last frame.
        self.before = size - 1 if causal else size // 2
        self.after = size - 1 - self.before
        self.weight = nn.Parameter(torch.zeros(features, channels, size, size, size))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        side = self.weight.shape[-1] // 2
        padded = torch.cat([x[:, :1]] * self.before + [x] + [x[:, -1:]] * self.after, dim=1)
        return functional.conv3d(padded.movedim(-1, 1), self.weight, self.bias, padding=(0, side, side)).movedim(1, -1)


class ResBlock(nn.Module):
    """vae.ltx_layers.ResBlock, where `told` with shifts and scales [4, c]; its name and place name its noise."""

    def __init__(self, name: str, channels: int, width: int, config: LtxVaeConfig, noisy: bool, told: bool = False):
        super().__init__()
        self.name, self.noisy = name, noisy
        self.conv1 = LtxConv(channels, width, config.decoder_causal)
        self.conv2 = LtxConv(width, width, config.decoder_causal)
        if noisy:
            self.per_channel_scale1, self.per_channel_scale2 = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        if told:
            self.scale_shift_table = nn.Parameter(torch.zeros(4, width))
        changes = width != channels
        self.norm3 = nn.LayerNorm(channels, config.norm_epsilon) if changes else None
        self.conv_shortcut = LtxConv(channels, width, config.decoder_causal, 1) if changes else None

    def forward(self, x: Tensor, changes: Tensor | None) -> Tensor:
        y, (first, second) = x, (None, None) if changes is None else changes.chunk(2)
        for i, conv, change in ((1, self.conv1, first), (2, self.conv2, second)):
            y = conv(functional.silu(changed(functional.rms_norm(y, y.shape[-1:], eps=EPS), change)))
            if self.noisy:
                y = y + self.noise(i, *y.shape[2:4])[..., None] * self.get_parameter(f"per_channel_scale{i}")
        if self.norm3 is None or self.conv_shortcut is None:
            return x + y
        return y + self.conv_shortcut(self.norm3(x))

    def noise(self, i: int, h: int, w: int) -> Tensor:
        """What is added to every frame and channel behind convolution i, [h, w]."""
        return torch.tensor(np.asarray(fixed_noise(f"decoder/{self.name}/noise{i}", h, w)))


class Upsample(nn.Module):
    """vae.ltx_layers.Upsample of a clip's start."""

    def __init__(self, channels: int, factor: int, residual: bool, causal: bool):
        super().__init__()
        self.repeats = 8 // factor if residual else 0
        self.conv = LtxConv(channels, 8 * channels // factor, causal)

    def forward(self, x: Tensor, changes: None) -> Tensor:
        y = channels_to_pixels(self.conv(x))
        return y + channels_to_pixels(x).repeat(1, 1, 1, 1, self.repeats) if self.repeats else y


class TimeEmbedding(nn.Module):
    """vae.ltx_layers.TimeEmbedding of one time, a scalar."""

    def __init__(self, features: int):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(TIME_FEATURES, features), nn.Linear(features, features)

    def forward(self, time: Tensor) -> Tensor:
        features = time_features(time[None], TIME_FEATURES)[0]
        embedded: Tensor = self.linear_2(functional.silu(self.linear_1(features)))
        return embedded


def changed(x: Tensor, change: Tensor | None) -> Tensor:
    """x (1 + scale) + shift, where there is a shift and scale [2, c]."""
    return x if change is None else x * (1 + change[1]) + change[0]


def latent_noise(*shape: int) -> Tensor:
    """What latents [t, h, w, c] are mixed with."""
    return torch.tensor(np.asarray(fixed_noise("latents", *shape)))


def channels_to_pixels(x: Tensor) -> Tensor:
    """Channels, counted (channel, frame, row, column), to 2x2x2 pixels; the copy of a clip's first frame is dropped."""
    b, t, h, w, _ = x.shape
    x = x.reshape(b, t, h, w, -1, 2, 2, 2).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(b, 2 * t, 2 * h, 2 * w, -1)[:, 1:]


def patches_to_pixels(x: Tensor, side: int) -> Tensor:
    """Channels, counted (channel, column, row), to side x side pixels."""
    b, t, h, w, _ = x.shape
    x = x.reshape(b, t, h, w, -1, side, side).permute(0, 1, 2, 6, 3, 5, 4)
    return x.reshape(b, t, h * side, w * side, -1)
