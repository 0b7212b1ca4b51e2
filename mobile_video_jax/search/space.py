"""Search spaces: what each position of a network may be, and the layouts that follow."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mobile_video_jax.core.errors import UserError


class Choice(NamedTuple):
    """A kind of layer at a resolution: the divisor of the grid's height and width, 1 for the whole grid."""

    kind: str
    resolution: int

    def __str__(self) -> str:
        return f"{self.kind}/{self.resolution}"


# A choice for every position of a network, in order.
Layout = tuple[Choice, ...]


@dataclasses.dataclass(frozen=True)
class Space:
    """The choices of each position. Tokens enter and leave the positions at the resolution `outer`.

    A position's choices need not have one resolution, nor do positions need the same choices. Raises UserError for a
    space without positions, a position without choices, and a choice that is listed twice.
    """

    positions: tuple[tuple[Choice, ...], ...]
    outer: int = 1

    def __post_init__(self) -> None:
        if not self.positions or not all(self.positions):
            raise UserError("a search space needs a position, and a choice at each: name kinds and resolutions")
        for choices in self.positions:
            if repeated := [choice for choice in set(choices) if choices.count(choice) > 1]:
                raise UserError(f"{repeated[0]} is listed twice: name each kind and each resolution once")

    @functools.cached_property
    def choices(self) -> tuple[Choice, ...]:
        """Every choice of any position, each once."""
        return tuple(dict.fromkeys(itertools.chain.from_iterable(self.positions)))

    @functools.cached_property
    def levels(self) -> tuple[frozenset[int], ...]:
        """The resolutions that tokens can have before the first position, after each, and at the end."""
        outer = frozenset({self.outer})
        return outer, *(frozenset(choice.resolution for choice in here) for here in self.positions), outer

    @functools.cached_property
    def moves(self) -> tuple[tuple[int, int], ...]:
        """The pairs of different resolutions that can follow each other, each once."""
        neighbours = itertools.pairwise(self.levels)
        return tuple(sorted({(x, y) for before, after in neighbours for x in before for y in after if x != y}))

    def check(self, layout: Sequence[Choice]) -> None:
        """Raises UserError for a layout that is not of this space."""
        if len(layout) != len(self.positions):
            raise UserError(
                f"a layout of {len(layout)} does not fit {len(self.positions)} positions: list one for each"
            )
        for i, (choice, allowed) in enumerate(zip(layout, self.positions, strict=True)):
            if choice not in allowed:
                raise UserError(f"position {i} cannot be {choice}: use one of {', '.join(map(str, allowed))}")


def uniform_space(depth: int, kinds: Iterable[str], resolutions: Iterable[int]) -> Space:
    """The space in which each of `depth` positions may be any kind at any resolution."""
    return Space((tuple(itertools.starmap(Choice, itertools.product(kinds, resolutions))),) * depth)


def as_text(layout: Iterable[Choice]) -> str:
    """A layout for people, with equal neighbours together: `full/1, lcha/2 x 3`."""
    runs = ((choice, len(list(same))) for choice, same in itertools.groupby(layout))
    return ", ".join(f"{choice} x {count}" if count > 1 else str(choice) for choice, count in runs)
