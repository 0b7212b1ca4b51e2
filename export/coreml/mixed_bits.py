"""Which weights get 4, 6, 8 or all 16 bits: those whose palettes alone disturb a network's output most get most.

The disturbances of single weights are taken as independent, so that their mean squares add up.
"""

import dataclasses
import heapq
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.coreml.compress import DEFAULT_BITS, SMALLEST, Weights, optimize
from export.coreml.palette import palettized
from export.coreml.quiet import quietly

BITS = (4, 6, 8, 16)
STEP = 0.1  # dB by which the sum's target rises, at least, while the network itself falls short

Recipe = dict[str, int]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A weight: its constant's name in the package, its count of numbers and the output's error for each of BITS.

    The error is relative to the peak, sum_o mean((y_o - y'_o)^2) / max(|y_o|)^2 over the outputs o.
    """

    name: str
    size: int
    errors: Sequence[float]

    def gain(self, level: int) -> float:
        """What a step up from BITS[level] improves, for each bit that it takes."""
        return (self.errors[level] - self.errors[level + 1]) / self.cost(level)

    def cost(self, level: int) -> int:
        return self.size * (BITS[level + 1] - BITS[level])


class Ranking:
    """The weights of a network that coremltools' model has as constants, and what their palettes do to its outputs."""

    def __init__(self, module: nn.Module, inputs: Sequence[np.ndarray], model: Any):
        self.module, self.inputs = module, tuple(torch.tensor(x) for x in inputs)
        with quietly():
            constants = optimize.get_weights_metadata(model, SMALLEST)
        named = ((name, f"{name.replace('.', '_')}_to_fp16", x.detach()) for name, x in module.named_parameters())
        self.weights = {constant: (name, x) for name, constant, x in named if constant in constants and x.ndim > 1}
        self.palettes = {
            constant: [torch.tensor(palettized(x.numpy(), bits)) for bits in BITS[:-1]]
            for constant, (_, x) in self.weights.items()
        }
        self.reference = self._outputs({})
        self.layers = [self._layer(constant) for constant in self.weights]

    def error(self, recipe: Recipe) -> float:
        """The error of all weights of the recipe together."""
        changed = {self.weights[name][0]: self._values(name, bits) for name, bits in recipe.items()}
        pairs = zip(self._outputs(changed), self.reference, strict=True)
        return sum(float(((found - y) ** 2).mean() / y.abs().max() ** 2) for found, y in pairs)

    def _layer(self, name: str) -> Layer:
        """Measured at 4 bits; outputs are linear in small changes, so the rest follows from the weight's own errors."""
        weight, measured = self.weights[name][1], self.error({name: BITS[0]})
        own = [float(((palette - weight) ** 2).sum()) for palette in self.palettes[name]]
        return Layer(name, weight.numel(), [measured * each / own[0] for each in own] + [0.0])

    def _values(self, name: str, bits: int) -> Tensor:
        return self.weights[name][1] if bits == BITS[-1] else self.palettes[name][BITS.index(bits)]

    def _outputs(self, changed: dict[str, Tensor]) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            found = torch.func.functional_call(self.module, changed, self.inputs)
        return found if isinstance(found, tuple) else (found,)


def recipe(module: nn.Module, inputs: Sequence[np.ndarray], model: Any, weights: Weights) -> Recipe:
    """The bits of each weight of the module's Core ML model: so many on average, or what reaches a PSNR."""
    ranking = Ranking(module, inputs, model)
    if weights.target_psnr is None:
        return assign(ranking.layers, bits=weights.target_bits or DEFAULT_BITS)
    goal = weights.target_psnr
    while (error := ranking.error(found := assign(ranking.layers, psnr=goal))) > 10 ** (-weights.target_psnr / 10):
        goal += weights.target_psnr + 10 * math.log10(error) + STEP
    return found


def assign(layers: Sequence[Layer], *, bits: float = math.inf, psnr: float = math.inf) -> Recipe:
    """From 4 bits up: each time the layer that gains most for its bits takes the next step, until a target is met.

    `bits` is what all numbers may take on average, `psnr` what the sum of the errors is to reach, in dB.
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
