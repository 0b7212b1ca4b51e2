"""Ops between resolutions: upsampling and pooling."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from export.mil.ops.elementwise import Kernel
from export.mil.ops.linear import padded, paddings
from mobile_video_jax.core.errors import UserError


def upsample_nearest(x: Tensor, scale_factor_height: Tensor, scale_factor_width: Tensor) -> Tensor:
    size = [int(x.shape[-2] * scale_factor_height), int(x.shape[-1] * scale_factor_width)]
    return _interpolated(x, size, mode="nearest")


def upsample_bilinear(
    x: Tensor,
    scale_factor_height: Tensor,
    scale_factor_width: Tensor,
    align_corners: Tensor,
    half_pixel_centers: Tensor | None = None,
) -> Tensor:
    if half_pixel_centers is not None and bool(half_pixel_centers) == bool(align_corners):
        raise UserError("upsample_bilinear is verified with half_pixel_centers = not align_corners alone")
    size = [int(x.shape[-2] * scale_factor_height), int(x.shape[-1] * scale_factor_width)]
    return _interpolated(x, size, mode="bilinear", align_corners=bool(align_corners))


def resize_bilinear(x: Tensor, target_size_height: Tensor, target_size_width: Tensor, sampling_mode: str) -> Tensor:
    if sampling_mode not in ("STRICT_ALIGN_CORNERS", "UNALIGN_CORNERS"):
        raise UserError(f"resize_bilinear's sampling_mode {sampling_mode} is not verified: use UNALIGN_CORNERS")
    size = [int(target_size_height), int(target_size_width)]
    return _interpolated(x, size, mode="bilinear", align_corners=sampling_mode == "STRICT_ALIGN_CORNERS")


def _interpolated(x: Tensor, size: list[int], **options: Any) -> Tensor:
    """Interpolates the last two axes; all axes before them are a batch."""
    flat = functional.interpolate(x.reshape(1, -1, *x.shape[-2:]), size, **options)
    return flat.view(*x.shape[:-2], *size)


def max_pool(
    x: Tensor, kernel_sizes: Tensor, strides: Tensor, pad_type: str, ceil_mode: Tensor, pad: Tensor | None = None
) -> Tensor:
    return _windows(x, kernel_sizes, strides, pad_type, ceil_mode, pad, float("-inf")).amax(-1)


def avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    strides: Tensor,
    pad_type: str,
    ceil_mode: Tensor,
    exclude_padding_from_average: Tensor,
    pad: Tensor | None = None,
) -> Tensor:
    sums, counts = (
        _windows(values, kernel_sizes, strides, pad_type, ceil_mode, pad, 0.0).sum(-1)
        for values in (x, torch.ones_like(x))
    )
    return sums / (counts if exclude_padding_from_average else kernel_sizes.prod())


def _windows(
    x: Tensor, kernel: Tensor, strides: Tensor, pad_type: str, ceil_mode: Tensor, pad: Tensor | None, value: float
) -> Tensor:
    """All windows of the spatial axes, their values along a new last axis."""
    if ceil_mode:
        raise UserError("pooling with ceil_mode is not verified: pad the input instead")
    taps, steps = kernel.tolist(), strides.tolist()
    x = padded(x, paddings(list(x.shape[2:]), taps, steps, pad_type, pad), value)
    for axis, (size, step) in enumerate(zip(taps, steps, strict=True), start=2):
        x = x.unfold(axis, size, step)
    return x.flatten(-len(taps))


KERNELS: dict[str, Kernel] = {
    "avg_pool": avg_pool,
    "max_pool": max_pool,
    "resize_bilinear": resize_bilinear,
    "upsample_bilinear": upsample_bilinear,
    "upsample_nearest_neighbor": upsample_nearest,
}
