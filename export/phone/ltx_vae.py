"""LTX-Video's decoder for phones, a whole clip [t, c, h, w] at a time, with 2-D convolutions alone."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.phone.layers import column, convolution, pointwise
from export.pytorch import ltx_vae as torch_ltx_vae
from export.pytorch.ltx_vae import Modulation, latent_noise
from export.pytorch.safe_norms import layer_normalize, rms_normalize
from export.tensors import PhoneFrames
from mobile_video_jax.vae.ltx.config import PATCH
from mobile_video_jax.vae.ltx.layers import EPS


class PhoneDecoder(nn.Module):
    """torch_ltx_vae.Decoder for latents of one shape (frames, rows, columns), in one piece, as it looks ahead in time.

    Maps latents, not normalised, to frames in about [-1, 1]. The timestep and all noise are constants.
    """

    inputs, outputs = ("latents",), ("video",)
    noise: Tensor

    def __init__(self, decoder: torch_ltx_vae.Decoder, shape: tuple[int, int, int]):
        super().__init__()
        config, (_, *grid) = decoder.config, shape
        self.noise_scale = config.decode_noise_scale if config.timestep_conditioning else 0.0
        if self.noise_scale:
            self.register_buffer("noise", self.noise_scale * latent_noise(*shape, config.channels).movedim(-1, 1))
        layers: OrderedDict[str, nn.Module] = OrderedDict(conv_in=PhoneConv(decoder.conv_in))
        for name in decoder.order:
            part = decoder.get_submodule(name)
            if isinstance(part, torch_ltx_vae.Upsample):
                layers[name] = PhoneUpsample(part, grid)
                grid = [2 * size for size in grid]
            elif isinstance(part, torch_ltx_vae.ResBlock):
                layers[name] = PhoneResBlock(part, decoder.modulation(name), grid)
        layers["norm"], layers["silu"] = PhoneNorm(decoder.modulation("")), nn.SiLU()
        layers["conv_out"] = PhoneConv(decoder.conv_out, _rows_first)
        layers["pixels"] = nn.PixelShuffle(PATCH)
        self.layers = nn.Sequential(layers)

    def forward(self, latents: PhoneFrames) -> Float[Tensor, "frames 3 rows columns"]:
        x = (1 - self.noise_scale) * latents + self.noise if self.noise_scale else latents
        video: Tensor = self.layers(x)
        return video


class PhoneConv(nn.Module):
    """torch_ltx_vae.LtxConv as one 2-D convolution over the channels of all frames that its kernel reaches.

    One sum over all of them rounds less in fp16 than a sum of one convolution a frame. `order` permutes the output
    features, the first axis of weight and bias.
    """

    def __init__(self, conv: torch_ltx_vae.LtxConv, order: Callable[[Tensor], Tensor] = lambda x: x):
        super().__init__()
        self.before, self.after = conv.before, conv.after
        weight, bias = order(conv.weight), order(conv.bias)
        self.features, self.channels, frames = weight.shape[:3]
        self.reach = frames - 1
        self.conv = convolution(weight.transpose(1, 2).flatten(1, 2), bias)

    def forward(self, x: PhoneFrames) -> Float[Tensor, "t features h w"]:
        padded = torch.cat([x[:1]] * self.before + [x] + [x[-1:]] * self.after)
        frames = [padded[i : i - self.reach or None] for i in range(self.reach + 1)]
        y: Tensor = self.conv(torch.cat(frames, dim=1))
        return y


class PhoneNorm(nn.Module):
    """RMS normalisation over channels, with the timestep's shift and scale where there are any."""

    shift: Tensor
    scale: Tensor

    def __init__(self, modulation: Modulation | None):
        super().__init__()
        self.modulated = modulation is not None
        if modulation is not None:
            self.register_buffer("shift", column(modulation[0]))
            self.register_buffer("scale", column(1 + modulation[1]))

    def forward(self, x: PhoneFrames) -> PhoneFrames:
        x = rms_normalize(x, epsilon=EPS)
        return x * self.scale + self.shift if self.modulated else x


class PhoneNoise(nn.Module):
    """Adds the same noise to all frames and channels, times a scale for each channel."""

    noise: Tensor

    def __init__(self, noise: Float[Tensor, "h w"], scale: Float[Tensor, "c"]):
        super().__init__()
        self.register_buffer("noise", noise[None, None])
        # As a convolution: coremltools makes one table [1, c, h, w] of a product of constants.
        self.scale = pointwise(scale[:, None], None)

    def forward(self, x: PhoneFrames) -> PhoneFrames:
        noise: Tensor = self.scale(self.noise)
        return x + noise


class PhoneResBlock(nn.Module):
    """torch_ltx_vae.ResBlock for frames of one size."""

    def __init__(self, block: torch_ltx_vae.ResBlock, modulation: Modulation | None, grid: Sequence[int]):
        super().__init__()
        first, second = (None, None) if modulation is None else modulation.chunk(2)
        self.inner = nn.Sequential(*_half(block, 1, first, grid), *_half(block, 2, second, grid))
        self.skip = nn.Identity() if block.conv_shortcut is None else PhoneShortcut(block)

    def forward(self, x: PhoneFrames) -> Float[Tensor, "t width h w"]:
        y: Tensor = self.skip(x) + self.inner(x)
        return y


class PhoneShortcut(nn.Module):
    """The shortcut around a block that changes the width."""

    scale: Tensor
    bias: Tensor

    def __init__(self, block: torch_ltx_vae.ResBlock):
        super().__init__()
        assert block.norm3 is not None and block.conv_shortcut is not None
        self.epsilon = block.norm3.eps
        self.register_buffer("scale", column(block.norm3.weight))
        self.register_buffer("bias", column(block.norm3.bias))
        self.conv = PhoneConv(block.conv_shortcut)

    def forward(self, x: PhoneFrames) -> Float[Tensor, "t width h w"]:
        y: Tensor = self.conv(layer_normalize(x, epsilon=self.epsilon) * self.scale + self.bias)
        return y


class PhoneUpsample(nn.Module):
    """torch_ltx_vae.Upsample, with channels in the order (frame, channel, row, column) that pixel shuffle expects."""

    def __init__(self, upsample: torch_ltx_vae.Upsample, grid: Sequence[int]):
        super().__init__()
        self.repeats, (self.h, self.w) = upsample.repeats, grid
        self.conv = PhoneConv(upsample.conv, _frames_first)

    def forward(self, x: PhoneFrames) -> Float[Tensor, "t2 c2 h2 w2"]:
        y = self.conv(x).reshape(-1, self.conv.features // 2, self.h, self.w)
        if self.repeats:
            # From (channel, frame, row, column) to (frame, channel, row, column).
            moved = x.reshape(-1, self.conv.channels // 8, 2, 4 * self.h, self.w).transpose(1, 2)
            y = y + moved.reshape(-1, self.conv.channels // 2, self.h, self.w).repeat(1, self.repeats, 1, 1)
        return functional.pixel_shuffle(y, 2)[1:]


def _half(
    block: torch_ltx_vae.ResBlock, i: int, modulation: Modulation | None, grid: Sequence[int]
) -> Iterator[nn.Module]:
    """The layers of a block up to convolution i of its two, and the noise after it."""
    yield from (PhoneNorm(modulation), nn.SiLU(), PhoneConv(getattr(block, f"conv{i}")))
    if block.noisy:
        yield PhoneNoise(block.noise(i, *grid), block.get_parameter(f"per_channel_scale{i}"))


def _frames_first(x: Float[Tensor, "o *i"]) -> Float[Tensor, "o *i"]:
    """Moves output features from the order (channel, frame, pixel) to (frame, channel, pixel)."""
    return torch.unflatten(x, 0, (-1, 2, 4)).transpose(0, 1).flatten(0, 2)


def _rows_first(x: Float[Tensor, "o *i"]) -> Float[Tensor, "o *i"]:
    """Moves output features from the order (channel, column, row) to (channel, row, column)."""
    return torch.unflatten(x, 0, (-1, PATCH, PATCH)).transpose(1, 2).flatten(0, 2)
