"""Costs of a transformer by the sizes of its blocks: parameters, FLOPs, activation bytes, seconds on the phone."""

import abc
import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mobile_video_jax.cost.flops import count_flops, count_parameters, written_bytes
from mobile_video_jax.cost.phone.ops import Op
from mobile_video_jax.cost.phone.roofline import call_seconds, seconds_by
from mobile_video_jax.cost.phone.trace import ops_of_network
from mobile_video_jax.dit.config import BlockShape, DitConfig
from mobile_video_jax.dit.groups import stages
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.nn.module import apply, init
from mobile_video_jax.prune.units import WIDTHS, Unit, Units

Number = int | float
Sizes = tuple[tuple[int, int, int], ...]

# The module of a block whose cost each width decides.
MODULES = {"heads": "self_attention", "cross_heads": "cross_attention", "ffn": "ffn"}
# Sizes at which latency is traced, as shares of the largest; in between it is interpolated.
TRACED = (1 / 32, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1)


@dataclasses.dataclass(frozen=True)
class Cost(abc.ABC):
    """A cost that adds up: rest + sum over blocks of (block + sum over a block's widths of of_width(kind, size)).

    Widths are heads of self- and of cross-attention and FFN channels. A peak is no such cost.
    """

    rest: Number
    block: Number

    @abc.abstractmethod
    def of_width(self, kind: str, size: int, shape: BlockShape) -> Number:
        """The cost of `size` heads or channels of a kind in a block of the kind and resolution of `shape`."""

    def of_empty(self, shape: BlockShape) -> Number:
        """The cost of a block of that kind and resolution without heads and channels."""
        return self.block

    def of_block(self, shape: BlockShape) -> Number:
        """The cost of one more block."""
        return self.of_empty(shape) + sum(self.of_width(kind, getattr(shape, kind), shape) for kind in WIDTHS)

    def of(self, shapes: Iterable[BlockShape]) -> Number:
        """The cost of a model of these blocks."""
        return self.rest + sum(map(self.of_block, shapes))

    def saved(self, removal: Sequence[Unit], units: Units, shapes: Mapping[int, BlockShape]) -> Number:
        """The saving of a model of these blocks by the removal of blocks, or of units that leave their blocks some."""
        total: Number = 0
        for (block, kind), count in collections.Counter((unit.block, unit.kind) for unit in removal).items():
            shape = shapes[block]
            if kind == "block":
                total += self.of_block(shape)
            else:
                size = getattr(shape, kind)
                less = size - count * units.step(kind)
                total += self.of_width(kind, size, shape) - self.of_width(kind, less, shape)
        return total


@dataclasses.dataclass(frozen=True)
class LinearCost(Cost):
    """A cost in proportion to heads of self-attention, heads of cross-attention and FFN channels."""

    heads: Number
    cross_heads: Number
    ffn: Number

    def of_width(self, kind: str, size: int, shape: BlockShape) -> Number:
        unit: Number = getattr(self, kind)
        return unit * size


@dataclasses.dataclass(frozen=True)
class TabulatedCost(Cost):
    """A cost that is known at some sizes of each kind, ascending, and interpolated between them."""

    tables: Mapping[str, tuple[Sequence[int], Sequence[float]]]

    def of_width(self, kind: str, size: int, shape: BlockShape) -> Number:
        return float(np.interp(size, *self.tables[kind]))


@dataclasses.dataclass(frozen=True)
class LayoutCost(Cost):
    """A cost of blocks of several kinds and resolutions, by these.

    `rest` has the layers between the model's resolutions, also where no block of their stage is left.
    """

    places: Mapping[tuple[str, int], Cost]

    def of_width(self, kind: str, size: int, shape: BlockShape) -> Number:
        return self.places[shape.place].of_width(kind, size, shape)

    def of_empty(self, shape: BlockShape) -> Number:
        return self.places[shape.place].of_empty(shape)


Costs = Mapping[str, Cost]


@functools.cache  # tracing takes seconds
def counted_costs(config: DitConfig, *inputs: jax.ShapeDtypeStruct) -> Costs:
    """The costs of a transformer's blocks, whatever their kinds and resolutions: see `equal_costs`."""
    if not config.layout:
        return equal_costs(config, *inputs)
    alike = dataclasses.replace(config, new_stages=())
    places = {
        place: equal_costs(dataclasses.replace(alike, layout=(place,)), *inputs)
        for place in dict.fromkeys(config.layout)
    }
    plain = equal_costs(dataclasses.replace(alike, layout=(("full", 1),)), *inputs)
    lower = [stage[0].shape.place for stage in stages(config) if stage[0].shape.resolution > 1]
    return {
        name: LayoutCost(
            rest=cost.rest + sum(places[place][name].rest - cost.rest for place in lower),
            block=0,
            places={place: costs[name] for place, costs in places.items()},
        )
        for name, cost in plain.items()
    }


def equal_costs(config: DitConfig, *inputs: jax.ShapeDtypeStruct) -> Costs:
    """Costs where all blocks are of one kind and resolution, those of the layout's first block.

    `parameters`; `flops`, `activations` and `latency` of one forward pass, counted in the network itself.

    A multiply-add is 2 FLOPs. Activations are the bytes of all products' results at 16 bits. Latency is the estimate
    for the phone in seconds (cost/phone). `inputs` are those of Dit, with a batch of 1 for costs of one clip. Nothing
    is computed.
    """

    def forward(count: Callable[..., int]) -> Callable[[Sizes], int]:
        def counted(blocks: Sizes) -> int:
            dit = _dit(config, blocks)
            return count(lambda *arguments: apply(dit, *arguments), _params(dit, *inputs), *inputs)

        return counted

    return {
        "parameters": _linear(lambda blocks: count_parameters(_params(_dit(config, blocks), *inputs))),
        "flops": _linear(forward(lambda *args: sum(count_flops(*args).values()))),
        "activations": _linear(forward(written_bytes)),
        "latency": phone_latency(config, *inputs),
    }


def phone_latency(config: DitConfig, *inputs: jax.ShapeDtypeStruct) -> TabulatedCost:
    """Seconds of one call on the phone: exact at the TRACED shares of the model's largest widths.

    It is no linear cost: tensors larger than the chip's memory cost traffic, smaller ones none. One trace serves all
    sizes, as in a block each width decides the ops of one module.
    """
    sizes = {kind: _traced_sizes(_largest(config, kind)) for kind in WIDTHS}
    longest = max(map(len, sizes.values()))
    padded = ((*sizes[kind], *sizes[kind][-1:] * (longest - len(sizes[kind]))) for kind in WIDTHS)
    ops = ops_of_network(_dit(config, tuple(zip(*padded, strict=True))), *inputs)
    seconds = seconds_by(ops, _block_and_module)
    tables = {
        kind: (sizes[kind], [seconds[f"block_{i}/{MODULES[kind]}"] for i in range(len(sizes[kind]))]) for kind in WIDTHS
    }
    return TabulatedCost(rest=seconds["rest"] + call_seconds([]), block=seconds["block_0/rest"], tables=tables)


def _largest(config: DitConfig, kind: str) -> int:
    """The largest width of a kind of the model's blocks."""
    same = {"heads": config.heads, "cross_heads": config.heads, "ffn": config.ffn}[kind]
    index = WIDTHS.index(kind)
    return max((block[index] for block in config.blocks), default=same)


def _traced_sizes(largest: int) -> tuple[int, ...]:
    return tuple(sorted({max(1, round(share * largest)) for share in TRACED}))


def _block_and_module(op: Op) -> str:
    """block_i/MODULE of an op, block_i/rest or rest."""
    _, separator, path = op.part.partition("/block_")
    if not separator:
        return "rest"
    block, *modules = path.split("/")
    return f"block_{block}/" + next((name for name in modules if name in MODULES.values()), "rest")


def _dit(config: DitConfig, blocks: Sizes) -> Dit:
    alike = dataclasses.replace(config, layout=config.layout[:1] * len(blocks), rope_heads=(), scan=False)
    return Dit(dataclasses.replace(alike, blocks=blocks, remat="none", dtype="bfloat16"))


def _params(dit: Dit, *inputs: jax.ShapeDtypeStruct) -> Any:
    return jax.eval_shape(lambda *inputs: init(dit, jax.random.key(0), *inputs), *inputs)


def _linear(count: Callable[[Sizes], int]) -> LinearCost:
    """The cost that models of one and of two of the smallest blocks have."""
    one = count(((1, 1, 1),))
    heads, cross_heads, ffn = (count((sizes,)) - one for sizes in ((2, 1, 1), (1, 2, 1), (1, 1, 2)))
    block = count(((1, 1, 1),) * 2) - one
    return LinearCost(one - block, block - heads - cross_heads - ffn, heads, cross_heads, ffn)
