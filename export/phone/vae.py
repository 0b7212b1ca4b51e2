"""The VAE's decoder for phones, a chunk of frames [t, c, h, w] at a time, with 2-D convolutions alone."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.phone.layers import PhoneAttention, column, convolution, pointwise
from export.phone.turn import full_tables
from export.pytorch import vae as torch_vae
from export.pytorch.safe_norms import rms_normalize
from export.pytorch.vae import CausalState, block_names
from export.tensors import PhoneFrames
from mobile_video_jax.vae.config import VaeConfig


class PhoneDecoder(nn.Module):
    """torch_vae.Decoder without a conditioning frame, for chunks of latent frames of one size (rows, columns).

    Maps latents, not normalised, to frames in about [-1, 1] and the causal state. `kept` names the state's tensors, in
    order, with their shapes: kept_NAME of one chunk is past_NAME of the next. A chunk that `starts` a clip takes none.
    """

    def __init__(self, decoder: torch_vae.Decoder, grid: tuple[int, int], *, starts: bool):
        super().__init__()
        config = decoder.config
        self.levels, self.starts, self.patch = decoder.levels, starts, config.patch
        self.packed = config.strides.patch
        grid = (grid[0] * self.packed, grid[1] * self.packed)
        self.kept = kept_shapes(config, grid)
        self.inputs = ("latents", *(() if starts else (f"past_{name}" for name in self.kept)))
        self.outputs = ("video", *(f"kept_{name}" for name in self.kept))
        self.stem = pointwise(decoder.stem.weight, decoder.stem.bias)
        part: Callable[[str], Any] = decoder.get_submodule
        names = [f"attention_{j}" for j in range(config.attention_blocks)]
        self.attention = nn.ModuleDict({name: PhoneWindow(part(name), grid) for name in names})
        self.convolutions = nn.ModuleDict()
        h, w = grid
        for i, level in reversed(list(enumerate(self.levels))):
            if level.step:
                self.convolutions[f"up_{i}"] = PhoneUp(part(f"up_{i}"), *level.step, (h, w), starts)
                h, w = h * level.step[1], w * level.step[1]
            for name in block_names(i, level):
                self.convolutions[name] = PhoneConvBlock(part(name))
        self.norm = PhoneNorm(decoder.norm)
        weight, bias = (_pixel_order(x, 1, self.patch) for x in (decoder.pixels.weight, decoder.pixels.bias))
        self.pixels = convolution(weight, bias)

    def forward(self, latents: PhoneFrames, *past: Float[Tensor, "_ _ _ _"]) -> tuple[Float[Tensor, "_ _ _ _"], ...]:
        state = CausalState({} if self.starts else dict(zip(self.kept, past, strict=True)), axis=0)
        x = self.stem(unpack(latents, self.packed))
        for name, attention in self.attention.items():
            x = attention(x, state, name)
        for i, level in reversed(list(enumerate(self.levels))):
            if level.step:
                x = self.convolutions[f"up_{i}"](x)
            for name in block_names(i, level):
                x = self.convolutions[name](x, state, name)
        video = functional.pixel_shuffle(self.pixels(functional.silu(self.norm(x))), self.patch)
        return video, *(state.kept[name] for name in self.kept)


def unpack(latents: PhoneFrames, patch: int) -> Float[Tensor, "t c2 h2 w2"]:
    """Latents without patches; the packed channels are ordered (row, column, channel)."""
    if patch == 1:
        return latents
    t, channels, h, w = latents.shape
    by_place = latents.reshape(t, patch**2, channels // patch**2, h * w)
    return functional.pixel_shuffle(by_place.transpose(1, 2).reshape(t, channels, h, w), patch)


def kept_shapes(config: VaeConfig, grid: tuple[int, int]) -> dict[str, tuple[int, int, int, int]]:
    """The shapes of each causal layer's last input frames, by the layer's name, in order."""
    levels = config.levels(config.decoder_widths, config.decoder_depths)
    (h, w), before = grid, config.attention_window - 1
    names = [f"attention_{j}" for j in range(config.attention_blocks if before else 0)]
    shapes = dict.fromkeys(names, (before, levels[-1].width, h, w))
    for i, level in reversed(list(enumerate(levels))):
        h, w = (size * level.step[1] if level.step else size for size in (h, w))
        for name in block_names(i, level) if level.temporal else ():
            shapes |= dict.fromkeys([f"{name}_conv_in", f"{name}_conv_out"], (2, level.width, h, w))
    return shapes


class PhoneNorm(nn.Module):
    """RMS normalisation over channels with learned scales."""

    scale: Tensor

    def __init__(self, norm: nn.RMSNorm):
        super().__init__()
        self.register_buffer("scale", column(norm.weight))

    def forward(self, x: PhoneFrames) -> PhoneFrames:
        return rms_normalize(x) * self.scale


class PhoneConv(nn.Module):
    """nn.conv.Conv; a causal kernel over three frames becomes a 2-D one over the channels of all three."""

    def __init__(self, conv: torch_vae.Conv):
        super().__init__()
        self.temporal = conv.temporal
        # [o, c, taps, 3, 3] to [o, taps c, 3, 3].
        weight = conv.weight.transpose(1, 2).flatten(1, 2) if self.temporal else conv.weight
        self.conv = convolution(weight, conv.bias)

    def forward(self, x: PhoneFrames, state: CausalState, name: str) -> Float[Tensor, "t features h w"]:
        if self.temporal:
            padded = state.with_past(name, x, 2)
            x = torch.cat([padded[:-2], padded[1:-1], padded[2:]], dim=1)
        y: Tensor = self.conv(x)
        return y


class PhoneConvBlock(nn.Module):
    """vae.blocks.ConvBlock."""

    def __init__(self, block: torch_vae.ConvBlock):
        super().__init__()
        self.norm_in, self.norm_out = PhoneNorm(block.norm_in), PhoneNorm(block.norm_out)
        self.conv_in, self.conv_out = PhoneConv(block.conv_in), PhoneConv(block.conv_out)

    def forward(self, x: PhoneFrames, state: CausalState, name: str) -> PhoneFrames:
        y = self.conv_in(functional.silu(self.norm_in(x)), state, f"{name}_conv_in")
        residual: Tensor = self.conv_out(functional.silu(self.norm_out(y)), state, f"{name}_conv_out")
        return x + residual


class PhoneUp(nn.Module):
    """An upsampling step in time and space; its channels are in the order that reshape and pixel shuffle expect."""

    def __init__(self, linear: nn.Linear, time: int, space: int, grid: tuple[int, int], starts: bool):
        super().__init__()
        self.space, self.dropped = space, time - 1 if starts else 0
        self.shape = (linear.weight.shape[0] // time, *grid)
        weight, bias = (_pixel_order(x, time, space) for x in (linear.weight, linear.bias))
        self.conv = pointwise(weight, bias)

    def forward(self, x: PhoneFrames) -> Float[Tensor, "t2 c2 h2 w2"]:
        x = self.conv(x).reshape(-1, *self.shape)
        return functional.pixel_shuffle(x, self.space)[self.dropped :]


class PhoneWindow(nn.Module):
    """vae.blocks.AttentionBlock, frame by frame."""

    def __init__(self, block: torch_vae.AttentionBlock, grid: tuple[int, int]):
        super().__init__()
        self.window, self.grid = block.window, grid
        self.norm = PhoneNorm(block.norm)
        cos, sin = (part.T[None, :, None] for part in full_tables(block.rope(*grid)))
        positions = math.prod(grid)
        last = cos[..., -positions:], sin[..., -positions:]
        self.attention = PhoneAttention(block.attention, rope=(last, (cos, sin)))

    def forward(self, x: PhoneFrames, state: CausalState, name: str) -> PhoneFrames:
        past = state.with_past(name, self.norm(x), self.window - 1)
        frames = torch.split(past.flatten(2)[:, :, None], 1)
        attended = [self._attend(frames[i : i + self.window]) for i in range(len(frames) - self.window + 1)]
        return x + torch.unflatten(torch.cat(attended).squeeze(2), 2, self.grid)

    def _attend(self, frames: Sequence[Float[Tensor, "1 c 1 hw"]]) -> Float[Tensor, "1 c 1 hw"]:
        """Attention of the last frame to all of them."""
        attended: Tensor = self.attention(frames[-1], torch.cat(tuple(frames), dim=3))
        return attended


def _pixel_order(x: Float[Tensor, "o *i"], time: int, space: int) -> Float[Tensor, "o *i"]:
    """Output features (time, row, column, channel) in the order (time, channel, row, column) of pixel_shuffle."""
    parts = torch.unflatten(x.detach(), 0, (time, space * space, -1))
    return parts.transpose(1, 2).flatten(0, 2)
