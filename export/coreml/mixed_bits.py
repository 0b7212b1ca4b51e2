"""4, 6, 8 or all 16 bits for each weight: most for those whose compression alone changes the network's output most.

The errors of single weights are taken as independent, so that their mean squares add up.
"""

import dataclasses
import heapq
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.coreml.compress import DEFAULT_BITS, LEAST_NUMBERS, Weights, optimize
from export.coreml.palette import palettized
from export.coreml.quiet import quietly

BITS = (4, 6, 8, 16)
STEP = 0.1  # dB by which the target of the summed errors rises, at least, while the network itself misses it

Recipe = dict[str, int]  # bits, by the name of the constant in the package


@dataclasses.dataclass(frozen=True)
class Layer:
    """A weight tensor. Errors are sum_o mean((y_o - y'_o)^2) / max(|y_o|)^2 over the network's outputs o."""

    name: str  # of its constant in the package
    size: int  # count of numbers
    errors: Sequence[float]  # of the outputs, for each of BITS

    def gain(self, level: int) -> float:
        """The error that a step up from BITS[level] removes, for each bit that it takes."""
        return (self.errors[level] - self.errors[level + 1]) / self.cost(level)

    def cost(self, level: int) -> int:
        """The bits that a step up from BITS[level] takes."""
        return self.size * (BITS[level + 1] - BITS[level])


class Sensitivity:
    """The errors that palettes of a network's weights cause in its outputs.

    Counts weights that coremltools' model of the network has as constants.
    """

    def __init__(self, module: nn.Module, inputs: Sequence[np.ndarray], model: Any):
        self.module, self.inputs = module, tuple(torch.tensor(x) for x in inputs)
        with quietly():
            constants = optimize.get_weights_metadata(model, LEAST_NUMBERS)
        named = {f"{name.replace('.', '_')}_to_fp16": (name, x.detach()) for name, x in module.named_parameters()}
        self.weights = {key: (name, x) for key, (name, x) in named.items() if key in constants and x.ndim > 1}
        self.palettes = {
            constant: [torch.tensor(palettized(x.numpy(), bits)) for bits in BITS[:-1]]
            for constant, (_, x) in self.weights.items()
        }
        self.reference = self._outputs({})
        self.layers = [self._layer(constant) for constant in self.weights]

    def error(self, recipe: Recipe) -> float:
        """The error with all weights of the recipe compressed."""
        changed = {self.weights[name][0]: self._values(name, bits) for name, bits in recipe.items()}
        pairs = zip(self._outputs(changed), self.reference, strict=True)
        return sum(float(((output - y) ** 2).mean() / y.abs().max() ** 2) for output, y in pairs)

    def _layer(self, name: str) -> Layer:
        """Measures the error at 4 bits. Outputs are linear in small changes, so the weight's own errors scale it."""
        weight, measured = self.weights[name][1], self.error({name: BITS[0]})
        distances = [float(((palette - weight) ** 2).sum()) for palette in self.palettes[name]]
        return Layer(name, weight.numel(), [measured * each / distances[0] for each in distances] + [0.0])

    def _values(self, name: str, bits: int) -> Tensor:
        return self.weights[name][1] if bits == BITS[-1] else self.palettes[name][BITS.index(bits)]

    def _outputs(self, changed: dict[str, Tensor]) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            outputs = torch.func.functional_call(self.module, changed, self.inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)


def recipe(module: nn.Module, inputs: Sequence[np.ndarray], model: Any, weights: Weights) -> Recipe:
    """The bits of each weight of the module's Core ML model: a target on average, or as many as reach a PSNR."""
    sensitivity = Sensitivity(module, inputs, model)
    if weights.target_psnr is None:
        return assign(sensitivity.layers, bits=weights.target_bits or DEFAULT_BITS)
    target = goal = weights.target_psnr
    while (error := sensitivity.error(bits := assign(sensitivity.layers, psnr=goal))) > 10 ** (-target / 10):
        goal += target + 10 * math.log10(error) + STEP
    return bits


def assign(layers: Sequence[Layer], *, bits: float = math.inf, psnr: float = math.inf) -> Recipe:
    """Starts at 4 bits and steps the layer up that gains most a bit, until a target is met.

    `bits` bounds the average of all numbers; `psnr`, in dB, is what the sum of the errors is to reach.
    """
    levels = dict.fromkeys(range(len(layers)), 0)
    budget = (bits - BITS[0]) * sum(layer.size for layer in layers)
    error = sum(layer.errors[0] for layer in layers)
    queue = [(-layer.gain(0), i) for i, layer in enumerate(layers)]
    heapq.heapify(queue)
    while queue and error > 10 ** (-psnr / 10):
        _, i = heapq.heappop(queue)
        layer, level = layers[i], levels[i]
        if layer.cost(level) > budget:
            continue
        budget -= layer.cost(level)
        error += layer.errors[level + 1] - layer.errors[level]
        levels[i] += 1
        if levels[i] < len(BITS) - 1:
            heapq.heappush(queue, (-layer.gain(levels[i]), i))
    return {layer.name: BITS[levels[i]] for i, layer in enumerate(layers)}
