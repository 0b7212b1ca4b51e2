"""Stages of lower resolution (dit/resolution.py): the averages of squares, and back, each as one convolution."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mobile_video_jax.nn.attention.config import Grid


class PhoneDown(nn.Module):
    """Downsampling of the tokens of a grid: mean(x) + W squares(x), a convolution of that stride."""

    def __init__(self, down: Any, grid: Grid, size: int):
        super().__init__()
        (frames, height, width), weight = grid, down.squares.weight.detach()
        self.image = (frames * height, width)
        outputs, inputs = weight.shape[0], weight.shape[1] // size**2
        self.conv = nn.Conv2d(inputs, outputs, size, stride=size, bias=False, device="meta")
        learned = weight.view(outputs, size, size, inputs).permute(0, 3, 1, 2)
        mean = torch.eye(outputs)[:, :, None, None] / size**2
        self.conv.weight = nn.Parameter(learned + mean.to(weight), requires_grad=False)

    def forward(self, x: Float[Tensor, "1 c 1 s"]) -> Float[Tensor, "1 c 1 low"]:
        low: Tensor = self.conv(x.view(1, -1, *self.image))
        return low.flatten(2)[:, :, None]


class PhoneUp(nn.Module):
    """What a change of a stage's tokens adds to those of the grid: repeat(y) + unsquare(W y), a pixel shuffle."""

    def __init__(self, up: Any, grid: Grid, size: int):
        super().__init__()
        (frames, height, width), weight = grid, up.squares.weight.detach()
        self.image, self.size = (frames * height // size, width // size), size
        inputs = weight.shape[1]
        self.conv = nn.Conv2d(inputs, weight.shape[0], 1, bias=False, device="meta")
        # The shuffle takes the squares of a channel after each other, JAX the channels of a place.
        learned = weight.view(size**2, inputs, inputs).transpose(0, 1)
        repeated = torch.eye(inputs)[:, None].expand(-1, size**2, -1)
        self.conv.weight = nn.Parameter((learned + repeated.to(weight)).reshape(-1, inputs, 1, 1), requires_grad=False)

    def forward(self, change: Float[Tensor, "1 c 1 low"]) -> Float[Tensor, "1 c 1 s"]:
        squares: Tensor = self.conv(change).view(1, -1, *self.image)
        x = functional.pixel_shuffle(squares, self.size)
        return x.flatten(2)[:, :, None]
