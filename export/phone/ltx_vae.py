"""LTX-Video's decoder for phones, a whole clip [t, c, h, w] at a time: 2-D convolutions over frames alone."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.phone.layers import column, convolution, pointwise
from export.pytorch import ltx_vae as torch_ltx_vae
from export.pytorch.ltx_vae import latent_noise
from export.pytorch.safe_norms import layer_normalize, rms_normalize
from mobile_video_jax.vae.ltx.config import PATCH
from mobile_video_jax.vae.ltx.layers import EPS


class PhoneDecoder(nn.Module):
    """torch_ltx_vae.Decoder for latents of one shape (frames, rows, columns), in one piece, as it looks ahead.

    Maps unnormalised latents [t, c, h, w] to frames [t', 3, h', w'] in about [-1, 1]. The timestep is fixed, and so is
    all noise: both are constants.
    """

    inputs, outputs = ("latents",), ("video",)
    noise: Tensor

    def __init__(self, decoder: torch_ltx_vae.Decoder, shape: tuple[int, int, int]):
        super().__init__()
        config, (_, *grid) = decoder.config, shape
        self.share = config.decode_noise_scale if config.timestep_conditioning else 0.0
        if self.share:
            self.register_buffer("noise", self.share * latent_noise(*shape, config.channels).movedim(-1, 1))
        layers: OrderedDict[str, nn.Module] = OrderedDict(conv_in=PhoneConv(decoder.conv_in))
        for name in decoder.order:
            part = decoder.get_submodule(name)
            if isinstance(part, torch_ltx_vae.Upsample):
                layers[name] = PhoneUpsample(part, grid)
                grid = [2 * size for size in grid]
            elif isinstance(part, torch_ltx_vae.ResBlock):
                layers[name] = PhoneResBlock(part, decoder.changes(name), grid)
        layers["norm"], layers["silu"] = PhoneNorm(decoder.changes("")), nn.SiLU()
        layers["conv_out"] = PhoneConv(decoder.conv_out, _rows_first)
        layers["pixels"] = nn.PixelShuffle(PATCH)
        self.layers = nn.Sequential(layers)

    def forward(self, latents: Tensor) -> Tensor:
        video: Tensor = self.layers((1 - self.share) * latents + self.noise if self.share else latents)
        return video


class PhoneConv(nn.Module):
    """torch_ltx_vae.LtxConv as one 2-D convolution over the frames that its kernel reaches, beside each other.

    One sum over all of them rounds less in fp16 than a sum of one convolution a frame. `order` brings the output
    features, the first axis of weight and bias, into another order.
    """

    def __init__(self, conv: torch_ltx_vae.LtxConv, order: Callable[[Tensor], Tensor] = lambda x: x):
        super().__init__()
        self.before, self.after = conv.before, conv.after
        weight, bias = order(conv.weight), order(conv.bias)
        self.features, self.channels, frames = weight.shape[:3]
        self.reach = frames - 1
        self.conv = convolution(weight.transpose(1, 2).flatten(1, 2), bias)

    def forward(self, x: Tensor) -> Tensor:
        padded = torch.cat([x[:1]] * self.before + [x] + [x[-1:]] * self.after)
        frames = [padded[i : i - self.reach or None] for i in range(self.reach + 1)]
        found: Tensor = self.conv(torch.cat(frames, dim=1))
        return found


class PhoneNorm(nn.Module):
    """RMS normalisation over channels, shifted and scaled where the timestep asks for it."""

    shift: Tensor
    scale: Tensor

    def __init__(self, change: Tensor | None):
        super().__init__()
        self.changes = change is not None
        if change is not None:
            self.register_buffer("shift", column(change[0]))
            self.register_buffer("scale", column(1 + change[1]))

    def forward(self, x: Tensor) -> Tensor:
        x = rms_normalize(x, epsilon=EPS)
        return x * self.scale + self.shift if self.changes else x


class PhoneNoise(nn.Module):
    """Adds noise [1, 1, h, w] to all frames, by a scale for each channel."""

    drawn: Tensor

    def __init__(self, drawn: Tensor, scale: Tensor):
        super().__init__()
        self.register_buffer("drawn", drawn[None, None])
        # As a convolution: coremltools makes one table [1, c, h, w] of a product of constants.
        self.scale = pointwise(scale[:, None], None)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale(self.drawn)


class PhoneResBlock(nn.Module):
    """torch_ltx_vae.ResBlock for frames of one size."""

    def __init__(self, block: torch_ltx_vae.ResBlock, changes: Tensor | None, grid: Sequence[int]):
        super().__init__()
        first, second = (None, None) if changes is None else changes.chunk(2)
        self.inner = nn.Sequential(*_half(block, 1, first, grid), *_half(block, 2, second, grid))
        self.skip = nn.Identity() if block.conv_shortcut is None else PhoneShortcut(block)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.skip(x) + self.inner(x)
        return y


class PhoneShortcut(nn.Module):
    """The way around a block that changes the width."""

    scale: Tensor
    bias: Tensor

    def __init__(self, block: torch_ltx_vae.ResBlock):
        super().__init__()
        assert block.norm3 is not None and block.conv_shortcut is not None
        self.epsilon = block.norm3.eps
        self.register_buffer("scale", column(block.norm3.weight))
        self.register_buffer("bias", column(block.norm3.bias))
        self.conv = PhoneConv(block.conv_shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(layer_normalize(x, epsilon=self.epsilon) * self.scale + self.bias)
        return y


class PhoneUpsample(nn.Module):
    """torch_ltx_vae.Upsample: channels in the order (frame, channel, row, column) that a pixel shuffle moves."""

    def __init__(self, upsample: torch_ltx_vae.Upsample, grid: Sequence[int]):
        super().__init__()
        self.repeats, (self.h, self.w) = upsample.repeats, grid
        self.conv = PhoneConv(upsample.conv, _frames_first)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).reshape(-1, self.conv.features // 2, self.h, self.w)
        if self.repeats:
            # Channels (channel, frame, row, column) in the other order, the frames out of them.
            moved = x.reshape(-1, self.conv.channels // 8, 2, 4 * self.h, self.w).transpose(1, 2)
            y = y + moved.reshape(-1, self.conv.channels // 2, self.h, self.w).repeat(1, self.repeats, 1, 1)
        return functional.pixel_shuffle(y, 2)[1:]


def _half(block: torch_ltx_vae.ResBlock, i: int, change: Tensor | None, grid: Sequence[int]) -> Iterator[nn.Module]:
    """What runs up to convolution i of a block's two, and its noise."""
    yield from (PhoneNorm(change), nn.SiLU(), PhoneConv(getattr(block, f"conv{i}")))
    if block.noisy:
        yield PhoneNoise(block.noise(i, *grid), block.get_parameter(f"per_channel_scale{i}"))


def _frames_first(x: Tensor) -> Tensor:
    """Features (channel, frame, place) in the order (frame, channel, place)."""
    return x.unflatten(0, (-1, 2, 4)).transpose(0, 1).flatten(0, 2)


def _rows_first(x: Tensor) -> Tensor:
    """Features (channel, column, row) in the order (channel, row, column)."""
    return x.unflatten(0, (-1, PATCH, PATCH)).transpose(1, 2).flatten(0, 2)
