"""Norms that fp16 can hold: no square overflows."""

import torch
from torch import Tensor

from mobile_video_jax.nn.norm import EPS

LARGEST = 16384.0  # its inverse is fp16's smallest normal number


def rms_normalize(x: Tensor, axis: int = 1, epsilon: float = EPS) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) over an axis, for all that fp16 holds.

    Divided by the largest magnitude m, no square overflows, as those of numbers above 255 would: the root's argument is
    mean((x / m)^2) + epsilon / m^2. m is at least sqrt(epsilon / EPS), so that zeros stay zeros: the last term of
    theirs is EPS, whatever epsilon is. Where it is subnormal and read as 0 by some hardware, the mean over c channels
    is at least 1 / c.
    """
    scale = _inverse_of_largest(x, axis, (epsilon / EPS) ** 0.5)
    small, root = x * scale, epsilon**0.5 * scale
    return small * torch.rsqrt((small * small).mean(axis, keepdim=True) + root * root)


def layer_normalize(x: Tensor, axis: int = 1, epsilon: float = EPS) -> Tensor:
    """(x - mean(x)) / sqrt(var(x) + epsilon) over an axis, up to half of fp16's largest number.

    The mean is taken of x over its largest magnitude, so that no sum overflows.
    """
    scale = _inverse_of_largest(x, axis, 1.0)
    return rms_normalize(x - (x * scale).mean(axis, keepdim=True) / scale, axis, epsilon)


def _inverse_of_largest(x: Tensor, axis: int, least: float) -> Tensor:
    return 1 / x.abs().amax(axis, keepdim=True).clamp(least, LARGEST)
