"""FLOPs of the matrix products, convolutions and attention kernels of a compiled program's instructions."""

import math
import re
from collections.abc import Mapping

import numpy as np

from mobile_video_jax.cost.tpu.hlo import Instruction, Program

# Products of queries by keys by channels in each of splash attention's kernels: logits and output; logits, dV, dP and
# dK; logits, dP and dQ (arXiv 2205.14135, algorithms 1 and 4).
KERNEL_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dkv": 4, "splash_mha_dq": 3}
# A systolic array is 128 wide or more: smaller heads leave the rest of it idle.
ARRAY_WIDTH = 128
FLOATS = ("bf16", "f16", "f32")
WINDOW_DEFAULTS = {"stride": 1, "pad": 0, "lhs_dilate": 1, "rhs_dilate": 1}


def device_flops(program: Program, instruction: Instruction, computation: Mapping[str, Instruction]) -> int:
    """FLOPs of one run of an instruction on one device, what it calls included; loops are counted by their bodies."""
    if instruction.operation == "convolution":
        return _convolution(instruction, computation)
    if instruction.operation == "custom-call":
        return _kernel(instruction, computation)
    body = program.computations.get(instruction.called.get("calls", ""), {})
    return sum(device_flops(program, inner, body) for inner in body.values())


def _convolution(instruction: Instruction, computation: Mapping[str, Instruction]) -> int:
    """FLOPs of a convolution, or of a product: TPU programs write them as convolutions, batches as padded windows.

    Only taps on the input are counted, not those on padding, as in XLA's cost analysis.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.text)
    assert labels, instruction.text
    image, kernel = (computation[name].shapes[0].extents for name in instruction.operands[:2])
    result, (of_image, of_kernel, of_result) = instruction.shapes[0].extents, labels.groups()
    flops = 2 * result[of_result.index("b")] * result[of_result.index("f")] * kernel[of_kernel.index("i")]
    for axis in sorted(set(of_kernel) - {"i", "o"}):
        window = {name: _along(instruction.text, name, int(axis)) for name in WINDOW_DEFAULTS}
        flops *= _taps(
            image=image[of_image.index(axis)],
            kernel=kernel[of_kernel.index(axis)],
            result=result[of_result.index(axis)],
            **window,
        )
    return flops


def _along(text: str, name: str, axis: int) -> int:
    """The entry of an axis in window={size=1x32 pad=0_0x31_31 …}; of a pair of paddings the first."""
    match = re.search(rf"window=\{{[^}}]*\b{name}=(\S+?)[ }}]", text)
    return int(match[1].split("x")[axis].partition("_")[0]) if match else WINDOW_DEFAULTS[name]


def _taps(*, image: int, kernel: int, result: int, stride: int, pad: int, lhs_dilate: int, rhs_dilate: int) -> int:
    """Taps on the image of one axis, for all positions of the result together."""
    positions = np.arange(result)[:, None] * stride + np.arange(kernel)[None] * rhs_dilate - pad
    return int(np.sum((positions >= 0) & (positions <= (image - 1) * lhs_dilate) & (positions % lhs_dilate == 0)))


def _kernel(instruction: Instruction, computation: Mapping[str, Instruction]) -> int:
    """FLOPs of an attention kernel; 0 for other custom calls."""
    products = next((count for name, count in KERNEL_PRODUCTS.items() if instruction.name.startswith(name)), 0)
    if not products:
        return 0
    arrays = [computation[name].shapes[0] for name in instruction.operands]
    # Integer operands say which blocks are masked. A batch of one has no axis.
    q, k = [array.extents for array in arrays if array.dtype in FLOATS and len(array.extents) >= 3][:2]
    *batch, heads, queries, channels = q
    return 2 * products * math.prod(batch) * heads * queries * k[-2] * -(-channels // ARRAY_WIDTH) * ARRAY_WIDTH
