"""Work of a compiled program's instructions: FLOPs of products and convolutions, and a kernel's softmax."""

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

from mobile_video_jax.cost.tpu.hlo import Instruction, Program


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Work of one of splash attention's kernels for a query and a key."""

    products: int  # of both by channels (arXiv 2205.14135, algorithms 1 and 4)
    vector: int  # operations of the vector unit, as in the kernel's source: mask, maximum, exponential, sums, casts


FUSED, BACKWARD = "splash_mha_dkv fused", "splash_mha_dkv"
KERNELS = {
    "splash_mha_fwd": Kernel(2, 8),  # logits and output
    BACKWARD: Kernel(4, 9),  # logits, dV, dP and dK
    "splash_mha_dq": Kernel(3, 8),  # logits, dP and dQ
    FUSED: Kernel(5, 10),  # all five; it returns dQ beside dK and dV
}
FLOATS = ("bf16", "f16", "f32")
WINDOW_DEFAULTS = {"stride": 1, "pad": 0, "lhs_dilate": 1, "rhs_dilate": 1}


def device_flops(
    program: Program, instruction: Instruction, computation: Mapping[str, Instruction], array: int = 128
) -> int:
    """FLOPs of one run of an instruction on one device, what it calls included; loops are counted by their bodies.

    Heads narrower than a systolic array, which is `array` wide, leave the rest of it idle and count as that wide.
    """
    if instruction.operation == "convolution":
        return _convolution(instruction, computation)
    if instruction.operation == "custom-call":
        kernel, logits, channels = _kernel(instruction, computation)
        return 2 * kernel.products * logits * -(-channels // array) * array if kernel else 0
    body = program.computations.get(instruction.called.get("calls", ""), {})
    return sum(device_flops(program, inner, body, array) for inner in body.values())


def vector_operations(instruction: Instruction, computation: Mapping[str, Instruction]) -> int:
    """Operations of the vector unit in one run of an attention kernel; 0 for anything else, which memory limits."""
    if instruction.operation != "custom-call":
        return 0
    kernel, logits, _ = _kernel(instruction, computation)
    return kernel.vector * logits if kernel else 0


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


def _kernel(instruction: Instruction, computation: Mapping[str, Instruction]) -> tuple[Kernel | None, int, int]:
    """An attention kernel, its logits and the channels of a head; None for other custom calls."""
    name = next((name for name in KERNELS if instruction.name.startswith(name)), "")
    if not name:
        return None, 0, 0
    arrays = [computation[name].shapes[0] for name in instruction.operands]
    # Integer operands say which blocks are masked. A batch of one has no axis.
    q, k = [array.extents for array in arrays if array.dtype in FLOATS and len(array.extents) >= 3][:2]
    *batch, heads, queries, channels = q
    gradients = sum(math.prod(shape.extents) >= math.prod(k) for shape in instruction.shapes)
    if name == BACKWARD and gradients > 2:
        name = FUSED
    return KERNELS[name], math.prod(batch) * heads * queries * k[-2], channels
