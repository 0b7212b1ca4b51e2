"""Products: linear layers, convolutions, attention."""

import torch
from torch import Tensor
from torch.nn import functional

from export.mil.ops.elementwise import Kernel

CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def paddings(
    sizes: list[int], kernel: list[int], strides: list[int], pad_type: str, pad: Tensor | None
) -> list[tuple[int, int]]:
    """The padding before and after each spatial dimension; `kernel` holds dilated sizes."""
    if pad_type == "custom" and pad is not None:
        values = pad.tolist()
        return list(zip(values[::2], values[1::2], strict=True))
    if pad_type in ("valid", "custom"):
        return [(0, 0)] * len(sizes)
    pairs = []
    for size, taps, stride in zip(sizes, kernel, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + taps - size, 0)
        fewer, more = total // 2, total - total // 2
        pairs.append((more, fewer) if pad_type == "same_lower" else (fewer, more))
    return pairs


def padded(x: Tensor, pairs: list[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Pads the last dimensions, each by (before, after) values."""
    return functional.pad(x, [amount for pair in reversed(pairs) for amount in pair], value=value)


def dilated(weight: Tensor, dilations: Tensor) -> list[int]:
    """The sizes of a kernel with its dilation."""
    return [(taps - 1) * step + 1 for taps, step in zip(weight.shape[2:], dilations.tolist(), strict=True)]


def conv(
    x: Tensor,
    weight: Tensor,
    strides: Tensor,
    pad_type: str,
    dilations: Tensor,
    groups: Tensor,
    pad: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    steps = strides.tolist()
    pairs = paddings(list(x.shape[2:]), dilated(weight, dilations), steps, pad_type, pad)
    function = CONVOLUTIONS[x.ndim - 2]
    return function(padded(x, pairs), weight, bias, steps, 0, dilations.tolist(), int(groups))


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    strides: Tensor,
    pad_type: str,
    dilations: Tensor,
    groups: Tensor,
    pad: Tensor | None = None,
    bias: Tensor | None = None,
    output_shape: Tensor | None = None,
) -> Tensor:
    """The whole result cropped by the pads. What `output_shape` adds at the end holds the bias alone."""
    steps, taps = strides.tolist(), dilated(weight, dilations)
    full = TRANSPOSED[x.ndim - 2](x, weight, None, steps, 0, 0, int(groups), dilations.tolist())
    sizes = [size * step for size, step in zip(x.shape[2:], steps, strict=True)]
    pairs = paddings(sizes, taps, steps, pad_type, pad)
    for axis, (before, after) in enumerate(pairs, start=2):
        size = full.shape[axis] - before - after
        if output_shape is not None:
            size = int(output_shape[axis])
        elif pad_type.startswith("same"):
            size = sizes[axis - 2]
        full = _crop(full, axis, before, size)
    return full if bias is None else full + bias.view(-1, *[1] * len(steps))


def _crop(x: Tensor, axis: int, start: int, size: int) -> Tensor:
    missing = max(start + size - x.shape[axis], 0)
    last = [(0, missing)] + [(0, 0)] * (x.ndim - 1 - axis)
    return padded(x, last).narrow(axis, start, size)


def matmul(x: Tensor, y: Tensor, transpose_x: Tensor, transpose_y: Tensor) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask)


KERNELS: dict[str, Kernel] = {
    "conv": conv,
    "conv_transpose": conv_transpose,
    "einsum": lambda values, equation: torch.einsum(equation, *values),
    "linear": lambda x, weight, bias=None: functional.linear(x, weight, bias),
    "matmul": matmul,
    "scaled_dot_product_attention": attention,
}
