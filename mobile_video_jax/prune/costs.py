"""What a model costs by the sizes of its blocks, and what each unit holds of it."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from mobile_video_jax.core.flops import count_flops, count_parameters
from mobile_video_jax.dit.config import BlockShape, DitConfig
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.nn.module import apply, init
from mobile_video_jax.prune.units import WIDTHS, Unit, Units

Number = int | float
Sizes = tuple[tuple[int, int, int], ...]


@dataclasses.dataclass(frozen=True)
class LinearCost:
    """A cost that adds up: rest + sum over blocks of (block + heads h + cross_heads x + ffn f).

    Blocks have h heads of self-attention, x of cross-attention and f FFN channels; `block` is what a block costs beyond
    these. Parameters and FLOPs are such costs, and so is a latency fitted to measurements; a peak is none.
    """

    rest: Number
    block: Number
    heads: Number
    cross_heads: Number
    ffn: Number

    def of(self, shapes: Iterable[BlockShape]) -> Number:
        """The cost of a model of these blocks."""
        return self.rest + sum(self.of_block(shape) for shape in shapes)

    def of_block(self, shape: BlockShape) -> Number:
        """What one block adds."""
        return self.block + sum(getattr(self, kind) * getattr(shape, kind) for kind in WIDTHS)

    def held(self, unit: Unit, units: Units, shapes: Mapping[int, BlockShape]) -> Number:
        """What a model of these blocks saves without the unit."""
        if unit.kind == "block":
            return self.of_block(shapes[unit.block])
        return getattr(self, unit.kind) * units.step(unit.kind)


Costs = Mapping[str, LinearCost]


def counted_costs(config: DitConfig, *inputs: jax.ShapeDtypeStruct) -> dict[str, LinearCost]:
    """`parameters`, and `flops` of one forward pass (a multiply-add is 2), counted in the network itself.

    Both are linear in the sizes, so that models of one and two smallest blocks give them. `inputs` are those of Dit,
    with a batch of 1 for FLOPs of one clip. Nothing is computed.
    """

    def model(blocks: Sizes) -> tuple[Dit, Any]:
        dit = Dit(dataclasses.replace(config, blocks=blocks, scan=False, remat="none"))
        return dit, jax.eval_shape(lambda *inputs: init(dit, jax.random.key(0), *inputs), *inputs)

    def parameters(blocks: Sizes) -> int:
        return count_parameters(model(blocks)[1])

    def flops(blocks: Sizes) -> int:
        dit, params = model(blocks)
        return sum(count_flops(lambda *arguments: apply(dit, *arguments), params, *inputs).values())

    return {"parameters": _fitted(parameters), "flops": _fitted(flops)}


def _fitted(count: Callable[[Sizes], int]) -> LinearCost:
    one = count(((1, 1, 1),))
    heads, cross_heads, ffn = (count((sizes,)) - one for sizes in ((2, 1, 1), (1, 2, 1), (1, 1, 2)))
    block = count(((1, 1, 1),) * 2) - one
    return LinearCost(one - block, block - heads - cross_heads - ffn, heads, cross_heads, ffn)
