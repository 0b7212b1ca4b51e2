"""What a model costs by the sizes of its blocks, and what each unit holds of it."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from mobile_video_jax.cost.flops import count_flops, count_parameters, written_bytes
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

    def over(self, speed: float) -> "LinearCost":
        """The time that this takes at a speed."""
        return LinearCost(*(value / speed for value in dataclasses.astuple(self)))

    def plus(self, other: "LinearCost") -> "LinearCost":
        """Both costs together."""
        return LinearCost(*map(sum, zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def of_block(self, shape: BlockShape) -> Number:
        """What one block adds."""
        return self.block + sum(getattr(self, kind) * getattr(shape, kind) for kind in WIDTHS)

    def held(self, unit: Unit, units: Units, shapes: Mapping[int, BlockShape]) -> Number:
        """What a model of these blocks saves without the unit."""
        if unit.kind == "block":
            return self.of_block(shapes[unit.block])
        return getattr(self, unit.kind) * units.step(unit.kind)


Costs = Mapping[str, LinearCost]


# A phone that reads its weights at 60 GB/s (LPDDR5X-7500 on 64 bits, the A18 Pro's) and computes at 3 TFLOP/s: what it
# takes for arXiv 2507.13343's 0.9 B model to run four passes of 2.4 TFLOP in the 3.3 s that it is reported to need.
PHONE_FLOPS, PHONE_BYTES = 3.0e12, 60e9


def counted_costs(config: DitConfig, *inputs: jax.ShapeDtypeStruct) -> dict[str, LinearCost]:
    """`parameters`; `flops`, `activations` and `latency` of one forward pass, counted in the network itself.

    A multiply-add is 2 FLOPs; activations are the bytes of all products' results at 16 bits; latency is an estimate in
    seconds: FLOPs and 16-bit weights at a phone's speeds, one after the other. All are linear in the sizes, so that
    models of one and two smallest blocks give them. `inputs` are those of Dit, with a batch of 1 for costs of one
    clip. Nothing is computed.
    """

    def model(blocks: Sizes) -> tuple[Dit, Any]:
        sizes = dataclasses.replace(config, blocks=blocks, rope_heads=())
        dit = Dit(dataclasses.replace(sizes, scan=False, remat="none", dtype="bfloat16"))
        return dit, jax.eval_shape(lambda *inputs: init(dit, jax.random.key(0), *inputs), *inputs)

    def forward(count: Callable[..., int]) -> Callable[[Sizes], int]:
        def counted(blocks: Sizes) -> int:
            dit, params = model(blocks)
            return count(lambda *arguments: apply(dit, *arguments), params, *inputs)

        return counted

    parameters = _fitted(lambda blocks: count_parameters(model(blocks)[1]))
    flops = _fitted(forward(lambda *args: sum(count_flops(*args).values())))
    return {
        "parameters": parameters,
        "flops": flops,
        "activations": _fitted(forward(written_bytes)),
        "latency": flops.over(PHONE_FLOPS).plus(parameters.over(PHONE_BYTES / 2)),
    }


def _fitted(count: Callable[[Sizes], int]) -> LinearCost:
    one = count(((1, 1, 1),))
    heads, cross_heads, ffn = (count((sizes,)) - one for sizes in ((2, 1, 1), (1, 2, 1), (1, 1, 2)))
    block = count(((1, 1, 1),) * 2) - one
    return LinearCost(one - block, block - heads - cross_heads - ffn, heads, cross_heads, ffn)
