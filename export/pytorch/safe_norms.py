"""Norms whose squares and sums do not overflow fp16."""

import torch
from jaxtyping import Float
from torch import Tensor

from mobile_video_jax.nn.config import EPS

LARGEST = 16384.0  # its inverse is fp16's smallest normal number


def rms_normalize(x: Float[Tensor, "*n"], axis: int = 1, epsilon: float = EPS) -> Float[Tensor, "*n"]:
    """x / sqrt(mean(x^2) + epsilon) over an axis, for every x that fp16 holds.

    x is divided by its largest magnitude m first, as squares of numbers above 255 would overflow: the root is then of
    mean((x / m)^2) + epsilon / m^2. m is at least sqrt(epsilon / EPS), so that zeros stay zeros: for them the last term
    is EPS, whatever epsilon is. Some hardware reads that term as 0 where it is subnormal; the mean over c channels is
    then at least 1 / c.
    """
    scale = _inverse_of_largest(x, axis, (epsilon / EPS) ** 0.5)
    small, root = x * scale, epsilon**0.5 * scale
    mean = torch.linalg.vector_norm(small, dim=axis, keepdim=True) * x.shape[axis] ** -0.5
    return small * torch.rsqrt(mean * mean + root * root)


def layer_normalize(x: Float[Tensor, "*n"], axis: int = 1, epsilon: float = EPS) -> Float[Tensor, "*n"]:
    """(x - mean(x)) / sqrt(var(x) + epsilon) over an axis, for x up to half of fp16's largest number.

    The mean is that of x divided by its largest magnitude, so that no sum overflows.
    """
    scale = _inverse_of_largest(x, axis, 1.0)
    return rms_normalize(x - (x * scale).mean(axis, keepdim=True) / scale, axis, epsilon)


def _inverse_of_largest(x: Tensor, axis: int, least: float) -> Tensor:
    largest = torch.maximum(x.amax(axis, keepdim=True), -x.amin(axis, keepdim=True))
    return 1 / largest.clamp(least, LARGEST)
