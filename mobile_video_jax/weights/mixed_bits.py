"""4, 6, 8 or all 16 bits for each weight: most for those whose compression alone changes the network's output most."""

import dataclasses
import heapq
import math
from collections.abc import Sequence

BITS = (4, 6, 8, 16)
LEAST_NUMBERS = 2048  # of a tensor that is compressed; smaller ones, tables and norms, spare little and cost much error

Recipe = dict[str, int]  # bits, by a weight's name


@dataclasses.dataclass(frozen=True)
class Layer:
    """A weight tensor, and the error that its compression alone causes in the network's outputs."""

    name: str
    size: int  # count of numbers
    errors: Sequence[float]  # relative squared error for each of BITS, in one unit for all layers

    def gain(self, level: int) -> float:
        """The error that a step up from BITS[level] removes, for each bit that it takes."""
        return (self.errors[level] - self.errors[level + 1]) / self.cost(level)

    def cost(self, level: int) -> int:
        """The bits that a step up from BITS[level] takes."""
        return self.size * (BITS[level + 1] - BITS[level])


def scaled_errors(measured: float, distances: Sequence[float]) -> list[float]:
    """Errors for each of BITS, out of the one measured at the first and the weight's own squared errors at all but 16.

    Outputs are linear in small changes, so the weight's errors scale it. A weight that a palette holds has none.
    """
    return [measured * each / distances[0] if distances[0] else 0.0 for each in distances] + [0.0]


def assign(layers: Sequence[Layer], *, bits: float = math.inf, psnr: float = math.inf) -> Recipe:
    """Starts at 4 bits and steps the layer up that gains most a bit, until a target is met or no step gains.

    `bits` bounds the average of all numbers; `psnr`, in dB, is what the sum of the errors is to reach. The errors of
    single weights are taken as independent, so that their mean squares add up.
    """
    levels = dict.fromkeys(range(len(layers)), 0)
    budget = (bits - BITS[0]) * sum(layer.size for layer in layers)
    error = sum(layer.errors[0] for layer in layers)
    queue = [(-layer.gain(0), i) for i, layer in enumerate(layers)]
    heapq.heapify(queue)
    while queue and error > 10 ** (-psnr / 10) and queue[0][0] < 0:
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
