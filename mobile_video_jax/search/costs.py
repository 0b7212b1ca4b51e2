"""The cost table: what each choice costs, what a change of resolution costs, and budgets on the sum."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.phone.ops import HALF
from mobile_video_jax.search.space import Choice, Layout, Space

ROUNDING = 1e-9  # share by which a sum may exceed its limit


class Costs(NamedTuple):
    """What a network, or a part of one, costs in one call."""

    milliseconds: float = 0.0
    flops: float = 0.0  # a multiply-add is 2
    parameters: float = 0.0
    peak_bytes: float = 0.0  # of what the largest op reads and writes beside weights

    @property
    def weight_bytes(self) -> float:
        """Bytes of the parameters in 16 bits."""
        return HALF * self.parameters

    @property
    def memory(self) -> float:
        """Bytes of the parameters in 16 bits and of the largest op."""
        return self.weight_bytes + self.peak_bytes


# Costs that can be limited, with their units.
METRICS = {"milliseconds": "ms", "memory": "bytes", "flops": "FLOPs", "parameters": "parameters"}
# Name of a metric -> its largest allowed value.
Limits = Mapping[str, float]


def total(parts: Iterable[Costs]) -> Costs:
    """The sum of parts, of which the largest op is that of one."""
    milliseconds, flops, parameters, peaks = zip(Costs(), *parts, strict=True)
    return Costs(sum(milliseconds), sum(flops), sum(parameters), max(peaks))


@dataclasses.dataclass(frozen=True)
class CostTable:
    """Costs of a network by its layout: of the rest, of each choice, and of each change of resolution."""

    rest: Costs
    choices: Mapping[Choice, Costs]
    moves: Mapping[tuple[int, int], Costs]
    source: str  # where the milliseconds are from
    network: str = ""  # the digest of the network that the table is of

    def move(self, before: int, after: int) -> Costs:
        """The costs of going from one resolution to another."""
        return Costs() if before == after else self.moves[before, after]

    def of(self, layout: Layout, outer: int = 1) -> Costs:
        """The costs of a network of this layout."""
        levels = [outer, *(choice.resolution for choice in layout), outer]
        moves = itertools.starmap(self.move, itertools.pairwise(levels))
        return total([self.rest, *(self.choices[choice] for choice in layout), *moves])

    def exceeded(self, layout: Layout, limits: Limits, outer: int = 1) -> list[str]:
        """The metrics in which a layout is above its limit by more than rounding."""
        costs = self.of(layout, outer)
        return [name for name, limit in limits.items() if getattr(costs, name) > limit * (1 + ROUNDING)]

    def check(self, space: Space) -> None:
        """Raises UserError unless the table has all choices and changes of resolution of a space."""
        missing = [str(choice) for choice in space.choices if choice not in self.choices]
        missing += [
            f"the change {before} to {after}" for before, after in space.moves if (before, after) not in self.moves
        ]
        if missing:
            raise UserError(f"the cost table lacks {', '.join(missing)}: measure these or search without them")


def check_limits(limits: Limits) -> None:
    """Raises UserError for a metric that is not known, and without any limit."""
    if not limits:
        raise UserError("a search needs a budget: set --budget_ms, --budget_memory or --budget_flops")
    if unknown := set(limits) - set(METRICS):
        raise UserError(f"no cost is called '{unknown.pop()}': limit some of {', '.join(METRICS)}")


def measured_table(space: Space, costs_of: Callable[[Layout], Costs], source: str, network: str = "") -> CostTable:
    """The table that reproduces the costs of whole networks, of one and of two positions.

    A choice costs what a second position of it adds. Of a change of resolution the costs of the way there and back
    are halved, which no closed path notices.
    """
    one = {choice: costs_of((choice,)) for choice in space.choices}
    added = {choice: less(costs_of((choice, choice)), one[choice]) for choice in space.choices}
    choices = {choice: costs._replace(peak_bytes=one[choice].peak_bytes) for choice, costs in added.items()}
    representative = {choice.resolution: choice for choice in reversed(space.choices)}
    if space.outer not in representative:
        raise UserError(f"a cost table needs a choice at resolution {space.outer}: add it to the resolutions")
    rest = less(one[representative[space.outer]], added[representative[space.outer]])

    def moving(path: Sequence[int]) -> Costs:
        """The costs of all changes of resolution of a network with a position at each resolution of the path."""
        layout = tuple(representative[level] for level in path)
        whole = one[layout[0]] if len(layout) == 1 else costs_of(layout)
        for part in [rest, *(added[choice] for choice in layout)]:
            whole = less(whole, part)
        return whole

    half = {level: _scaled(moving([level]), 0.5) for level in representative if level != space.outer}
    half[space.outer] = Costs()
    moves = {}
    for before, after in space.moves:
        if space.outer in (before, after):
            moves[before, after] = half[before if after == space.outer else after]
        else:
            moves[before, after] = less(less(moving([before, after]), half[before]), half[after])
    return CostTable(rest, choices, moves, source, network)


def less(whole: Costs, part: Costs) -> Costs:
    """The whole without a part; the largest op has no difference and is left out."""
    return Costs(*(x - y for x, y in zip(whole[:-1], part[:-1], strict=True)))


def _scaled(costs: Costs, factor: float) -> Costs:
    return Costs(*(factor * x for x in costs))
