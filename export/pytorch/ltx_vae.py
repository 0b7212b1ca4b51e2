"""LTX-Video's decoder in PyTorch, with the names and shapes of mobile_video_jax/vae/ltx, channels last."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.pytorch.dit import time_features
from export.tensors import Features, Latents, Video
from mobile_video_jax.vae.ltx.config import PATCH, LtxVaeConfig
from mobile_video_jax.vae.ltx.layers import EPS, TIME_FEATURES, fixed_noise

Modulation = Float[Tensor, "k c"]  # shifts and scales of k / 2 norms, one after the other


class Decoder(nn.Module):
    """vae.ltx.Decoder: maps latents, not normalised, to clips in about [-1, 1].

    `order` names the blocks and upsampling layers in the order in which they run.
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

    def forward(self, latents: Latents) -> Video:
        if self.config.timestep_conditioning:
            scale = self.config.decode_noise_scale
            latents = (1 - scale) * latents + scale * latent_noise(*latents.shape[1:])
        x = self.conv_in(latents)
        for name in self.order:
            x = self.get_submodule(name)(x, self.modulation(name))
        x = modulate(functional.rms_norm(x, x.shape[-1:], eps=EPS), self.modulation(""))
        return patches_to_pixels(self.conv_out(functional.silu(x)), PATCH)

    def modulation(self, name: str) -> Modulation | None:
        """The timestep's modulation of a block's norms or, without a name, of the last norm; None if there is none."""
        level, of_block, _ = name.rpartition("_block_")
        if not self.config.timestep_conditioning or (name and not of_block):
            return None
        time = self.config.decode_timestep * self.timestep_scale_multiplier / 1000
        embedded: Tensor = self.get_submodule(f"{level}_time" if name else "time")(time)
        table: Any = self.get_submodule(name).scale_shift_table
        modulation: Tensor = torch.unflatten(embedded, 0, table.shape) + table
        return modulation

    def _add_level(self, level: str, width: int, depth: int, noise: bool) -> None:
        conditioned = self.config.timestep_conditioning
        if conditioned:
            self.add_module(f"{level}_time", TimeEmbedding(4 * width))
        for j in range(depth):
            name = f"{level}_block_{j}"
            self._add(name, ResBlock(name, width, width, self.config, noise, conditioned))

    def _add(self, name: str, module: nn.Module) -> None:
        self.add_module(name, module)
        self.order.append(name)


class LtxConv(nn.Module):
    """vae.ltx.layers.LtxConv without strides."""

    def __init__(self, channels: int, features: int, causal: bool, size: int = 3):
        super().__init__()
        # Counts of copies of the first and of the last frame.
        self.before = size - 1 if causal else size // 2
        self.after = size - 1 - self.before
        self.weight = nn.Parameter(torch.zeros(features, channels, size, size, size))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Features) -> Float[Tensor, "b t h w features"]:
        side = self.weight.shape[-1] // 2
        padded = torch.cat([x[:, :1]] * self.before + [x] + [x[:, -1:]] * self.after, dim=1)
        return functional.conv3d(padded.movedim(-1, 1), self.weight, self.bias, padding=(0, side, side)).movedim(1, -1)


class ResBlock(nn.Module):
    """vae.ltx.layers.ResBlock, modulated where `conditioned` on the timestep; its noise is seeded by its name."""

    def __init__(
        self, name: str, channels: int, width: int, config: LtxVaeConfig, noisy: bool, conditioned: bool = False
    ):
        super().__init__()
        self.name, self.noisy = name, noisy
        self.conv1 = LtxConv(channels, width, config.decoder_causal)
        self.conv2 = LtxConv(width, width, config.decoder_causal)
        if noisy:
            self.per_channel_scale1, self.per_channel_scale2 = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        if conditioned:
            self.scale_shift_table = nn.Parameter(torch.zeros(4, width))
        changes = width != channels
        self.norm3 = nn.LayerNorm(channels, config.norm_epsilon) if changes else None
        self.conv_shortcut = LtxConv(channels, width, config.decoder_causal, 1) if changes else None

    def forward(self, x: Features, modulation: Modulation | None) -> Float[Tensor, "b t h w width"]:
        y, (first, second) = x, (None, None) if modulation is None else modulation.chunk(2)
        for i, conv, of_norm in ((1, self.conv1, first), (2, self.conv2, second)):
            y = conv(functional.silu(modulate(functional.rms_norm(y, y.shape[-1:], eps=EPS), of_norm)))
            if self.noisy:
                y = y + self.noise(i, *y.shape[2:4])[..., None] * self.get_parameter(f"per_channel_scale{i}")
        if self.norm3 is None or self.conv_shortcut is None:
            return x + y
        shortcut: Tensor = self.conv_shortcut(self.norm3(x))
        return y + shortcut

    def noise(self, i: int, h: int, w: int) -> Float[Tensor, "{h} {w}"]:
        """The noise that is added to every frame and channel after convolution i."""
        return torch.tensor(np.asarray(fixed_noise(f"decoder/{self.name}/noise{i}", h, w)))


class Upsample(nn.Module):
    """vae.ltx.layers.Upsample at the start of a clip."""

    def __init__(self, channels: int, factor: int, residual: bool, causal: bool):
        super().__init__()
        self.repeats = 8 // factor if residual else 0
        self.conv = LtxConv(channels, 8 * channels // factor, causal)

    def forward(self, x: Features, modulation: None) -> Float[Tensor, "b t2 h2 w2 c2"]:
        y = channels_to_pixels(self.conv(x))
        return y + channels_to_pixels(x).repeat(1, 1, 1, 1, self.repeats) if self.repeats else y


class TimeEmbedding(nn.Module):
    """vae.ltx.layers.TimeEmbedding of one time."""

    def __init__(self, features: int):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(TIME_FEATURES, features), nn.Linear(features, features)

    def forward(self, time: Float[Tensor, ""]) -> Float[Tensor, "features"]:
        features = time_features(time[None], TIME_FEATURES)[0]
        embedded: Tensor = self.linear_2(functional.silu(self.linear_1(features)))
        return embedded


def modulate(x: Features, modulation: Float[Tensor, "2 c"] | None) -> Features:
    """x (1 + scale) + shift, of a modulation (shift, scale); x itself without one."""
    return x if modulation is None else x * (1 + modulation[1]) + modulation[0]


def latent_noise(*shape: int) -> Float[Tensor, "t h w c"]:
    """The noise that latents of this shape are mixed with."""
    return torch.tensor(np.asarray(fixed_noise("latents", *shape)))


def channels_to_pixels(x: Features) -> Float[Tensor, "b t2 h2 w2 c2"]:
    """Moves channels, in the order (channel, frame, row, column), to 2x2x2 pixels.

    The copy of a clip's first frame is dropped.
    """
    b, t, h, w, _ = x.shape
    x = x.reshape(b, t, h, w, -1, 2, 2, 2).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(b, 2 * t, 2 * h, 2 * w, -1)[:, 1:]


def patches_to_pixels(x: Features, side: int) -> Float[Tensor, "b t h2 w2 c2"]:
    """Moves channels, in the order (channel, column, row), to side x side pixels."""
    b, t, h, w, _ = x.shape
    x = x.reshape(b, t, h, w, -1, side, side).permute(0, 1, 2, 6, 3, 5, 4)
    return x.reshape(b, t, h * side, w * side, -1)
