"""The values that clips of moving shapes may have, and which of their combinations are held out."""

import dataclasses
import functools
import itertools
from typing import Annotated, Any, Literal, get_args

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Range

MAX_SIZE = 1.4  # of a single object: leaves it a path of a quarter of the side

Objects = Annotated[int, Range(1, 3)]
Colour = Literal["red", "green", "blue", "yellow", "cyan", "magenta"]
Shape = Literal["circle", "square", "triangle", "cross"]
Motion = Literal["left", "right", "up", "down", "still", "circling"]
Background = Literal["dark", "light", "gradient", "stripes", "noise"]
COUNTS = (1, 2, 3)
KNOWN: dict[str, tuple[Any, ...]] = {
    "counts": COUNTS,
    "colours": get_args(Colour),
    "shapes": get_args(Shape),
    "motions": get_args(Motion),
    "backgrounds": get_args(Background),
}
SPLITS = ("train", "validation", "test")
ATTRIBUTES = ("count", "colour", "shape", "motion")
Combination = tuple[int, str, str, str]


@dataclasses.dataclass(frozen=True)
class World(Config):
    """The values that each attribute of a clip may take; the default is everything that can be rendered.

    Raises UserError for an unknown or repeated value, and when holding out combinations leaves a value untrained.
    """

    counts: tuple[Objects, ...] = COUNTS  # numbers of objects
    colours: tuple[Colour, ...] = get_args(Colour)  # colours of objects
    shapes: tuple[Shape, ...] = get_args(Shape)  # shapes of objects
    motions: tuple[Motion, ...] = get_args(Motion)  # motions of objects
    backgrounds: tuple[Background, ...] = get_args(Background)  # grey patterns behind them
    size: Annotated[float, Range(0.8, MAX_SIZE)] = 1.0  # size of the objects; above 1 for single ones alone

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in KNOWN:
            values = getattr(self, field)
            if not values or len(set(values)) < len(values):
                raise UserError(f"world.{field} must name one value or more, each once; got {values}")
        if self.size > 1 and max(self.counts) > 1:
            raise UserError(f"world.size={self.size} leaves several objects no room: use at most 1, or counts=1")
        trained = [set(values) for values in zip(*combinations(self, "train"), strict=True)]
        if trained != [set(self.values(attribute)) for attribute in ATTRIBUTES]:
            raise UserError("too few values to hold some out: give two of counts, colours, shapes, motions two or more")

    def values(self, attribute: str) -> tuple[Any, ...]:
        """The values of one attribute, named in the singular as in `Attributes`."""
        values: tuple[Any, ...] = getattr(self, f"{attribute}s")
        return values


@functools.cache
def combinations(world: World, split: str) -> tuple[Combination, ...]:
    """All (count, colour, shape, motion) that a split is rendered from. Raises UserError for an unknown split."""
    if split not in SPLITS:
        raise UserError(f"there is no split '{split}'; there are {', '.join(SPLITS)}")
    values = [world.values(attribute) for attribute in ATTRIBUTES]
    indices = itertools.product(*(range(len(row)) for row in values))
    chosen = (index for index in indices if (sum(index) % 6 == 0) == (split == "test"))
    return tuple(tuple(row[i] for row, i in zip(values, index, strict=True)) for index in chosen)
