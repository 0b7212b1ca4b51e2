"""Layers of the phone's U-Net: linear layers, norms, convolutions of frames and the gated FFN, on maps [t, c, h, w]."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.pytorch.safe_norms import rms_normalize

Frames = Float[Tensor, "_ _ _ _"]  # [t, c, h, w], or as attention has them [t, c, 1, h w]


class GatedFeedForward(nn.Module):
    """unet.block.GatedFeedForward."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate, self.value, self.out = Pointwise(width, hidden), Pointwise(width, hidden), Pointwise(hidden, width)

    def forward(self, x: Frames) -> Frames:
        y: Tensor = self.out(self.value(x) * functional.gelu(self.gate(x), approximate="tanh"))
        return y


class Pointwise(nn.Conv2d):
    """A linear layer over channels, whose weight is [o, i] as a linear layer's."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 1)
        self.weight = nn.Parameter(self.weight[:, :, 0, 0])

    def forward(self, x: Frames) -> Frames:
        return functional.conv2d(x, self.weight[:, :, None, None], self.bias)


class Norm(nn.Module):
    """RMS normalisation over channels, with a scale."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Frames) -> Frames:
        return rms_normalize(x) * self.weight[:, None, None]


class SeparableConv(nn.Conv2d):
    """A depthwise 3x3 convolution, and a pointwise one."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
        self.pointwise = Pointwise(inputs, outputs)

    def forward(self, x: Frames) -> Frames:
        y: Tensor = self.pointwise(super().forward(x))
        return y


def frame_conv(inputs: int, outputs: int, separable: bool, stride: int = 1) -> nn.Module:
    """unet.block.FrameConv."""
    if separable:
        return SeparableConv(inputs, outputs, stride)
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)
