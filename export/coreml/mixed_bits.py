"""The bits of each weight of a Core ML model, by the errors that palettes of its weights cause in its outputs."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.coreml.compress import DEFAULT_BITS, Weights, optimize
from export.coreml.quiet import quietly
from mobile_video_jax.weights.mixed_bits import BITS, LEAST_NUMBERS, Layer, Recipe, assign, scaled_errors
from mobile_video_jax.weights.palette import palettized

STEP = 0.1  # dB by which the target of the summed errors rises, at least, while the network itself misses it


class Sensitivity:
    """The errors that palettes of a network's weights cause in its outputs.

    Counts weights that coremltools' model of the network has as constants. Errors are sum_o mean((y_o - y'_o)^2) /
    max(|y_o|)^2 over the network's outputs o.
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
        """Measures the error at 4 bits, which gives those at other bits."""
        weight, measured = self.weights[name][1], self.error({name: BITS[0]})
        distances = [float(((palette - weight) ** 2).sum()) for palette in self.palettes[name]]
        return Layer(name, weight.numel(), scaled_errors(measured, distances))

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
