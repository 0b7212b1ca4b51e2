"""A network in fp16, with weights as palettes or as 8-bit numbers that Core AI keeps compressed."""

import copy
from collections.abc import Mapping
from typing import Any

import coreai_torch._compression.custom_layers  # noqa: F401  defines the ops below
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mobile_video_jax.weights.mixed_bits import LEAST_NUMBERS
from mobile_video_jax.weights.palette import palette


class Palette(nn.Module):
    """A weight as indices into a table; coreai-torch packs the indices, which it knows by their name."""

    indices: Tensor
    lut: Tensor

    def __init__(self, weight: Tensor, bits: int):
        super().__init__()
        table, indices = palette(weight.numpy(), bits)
        self.register_buffer("indices", torch.tensor(indices).reshape(weight.shape))
        self.register_buffer("lut", torch.tensor(table).reshape(*[1] * weight.ndim, -1, 1))

    def forward(self, _: Tensor) -> Tensor:
        weight: Tensor = torch.ops.coreai.lut_to_dense(self.indices, self.lut, 0)
        return weight


class Int8(nn.Module):
    """A weight as 8-bit numbers, symmetric about 0, and one scale for each output channel."""

    numbers: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        largest = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
        scale = torch.where(largest > 0, largest / 127, 1.0).half()
        self.register_buffer("numbers", (weight / scale).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, _: Tensor) -> Tensor:
        weight: Tensor = torch.ops.coreai.constexpr_blockwise_shift_scale(self.numbers, scale=self.scale)
        return weight


def half(module: nn.Module) -> nn.Module:
    """A copy in fp16; no copy in float32 is made on the way."""
    tensors = [*module.parameters(), *module.buffers()]
    memo = {id(x): _half(x) for x in tensors if x.is_floating_point()}
    return copy.deepcopy(module, memo).eval()


def compressed(module: nn.Module, kind: str, recipe: Mapping[str, int]) -> nn.Module:
    """A copy in fp16 with weights of a kind of coreml.compress; mixed ones have the bits that `recipe` gives each."""
    result = half(module)
    if kind == "fp16":
        return result
    for name, weight in module.named_parameters():
        if weight.ndim < 2 or weight.numel() < LEAST_NUMBERS:
            continue
        bits = recipe.get(f"{name.replace('.', '_')}_to_fp16", 16) if kind == "mixed" else int(kind[-1])
        if bits == 16:
            continue
        path, _, attribute = name.rpartition(".")
        layer = result.get_submodule(path)
        stored = Int8(weight.detach()) if kind == "int8" else Palette(weight.detach(), bits)
        parametrize.register_parametrization(layer, attribute, stored, unsafe=True)
        dense: Any = layer.get_submodule(f"parametrizations.{attribute}")
        dense.original = nn.Parameter(torch.empty(0), requires_grad=False)
    return result


def _half(x: Tensor) -> Tensor:
    return nn.Parameter(x.detach().half(), requires_grad=False) if isinstance(x, nn.Parameter) else x.half()
