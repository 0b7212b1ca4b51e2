"""A captioned world of moving shapes that we draw ourselves, so that what a clip shows is known exactly.

A clip holds one group: `count` objects of one shape, colour and motion before a grey background. The objects move
together, never touch and never leave the frame. Lengths are fractions of the frame's shorter side, so that a clip
looks alike at every size, and a motion covers its whole path whatever the number of frames.

Clips are a function of (seed, split, index) alone. The combinations (count, colour, shape, motion) whose indices in the
world's tuples sum to a multiple of six are held out: "test" renders only those, "train" and "validation" only the
others, so that test prompts name compositions never trained on while each single value was (a Latin square over
attributes).
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.shapes.world import SPLITS, Combination, World, combinations

COLOURS = {
    "red": (230, 35, 35),
    "green": (35, 230, 35),
    "blue": (35, 35, 230),
    "yellow": (230, 230, 35),
    "cyan": (35, 230, 230),
    "magenta": (230, 35, 230),
}
# Signed distance to the outline from (row, column) offsets, both in units of the shape's radius; negative is inside.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda y, x: np.sqrt(x * x + y * y) - 1,
    "square": lambda y, x: np.maximum(np.abs(x), np.abs(y)) - 0.88,
    "triangle": lambda y, x: np.maximum(y, 0.866 * np.abs(x) - 0.5 * y) - 0.62,
    "cross": lambda y, x: np.maximum(np.maximum(np.abs(x), np.abs(y)) - 1.05, np.minimum(np.abs(x), np.abs(y)) - 0.38),
}
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0), "still": (0, 0)}  # rows, columns
# The two ranges of grey (0-255) between which each background's pattern runs.
BACKGROUNDS = {
    "dark": ((10, 60), (10, 60)),
    "light": ((190, 245), (190, 245)),
    "gradient": ((20, 80), (160, 230)),
    "stripes": ((30, 100), (140, 220)),
    "noise": ((30, 80), (150, 220)),
}
MIN_SIDE = 32  # pixels; below it a triangle and a circle look the same
REACH = 1.25  # no shape reaches farther than this from its centre, in radii
GAP = 0.04  # least distance between two objects' reaches, in sides
RADII = {1: (0.15, 0.21), 2: (0.11, 0.14), 3: (0.10, 0.12)}  # by count, in sides
TRAVEL = (0.30, 0.40)  # length of a straight path, in sides
MARGIN = 0.02  # room beside the longest path of a large object, in sides
ROUND = 0.75  # diameter of a round path for each unit of travel: three objects must still fit beside it

NUMBERS = {1: "one", 2: "two", 3: "three"}
# For each motion: the participle, the verb after one object and the verb after several.
VERBS = {
    **{way: (f"moving {way}", f"moves {way}", f"move {way}") for way in ("up", "down")},
    **{way: (f"moving {way}", f"moves to the {way}", f"move to the {way}") for way in ("left", "right")},
    "still": ("staying still", "stays still", "stay still"),
    "circling": ("going round in circles", "goes round in circles", "go round in circles"),
}
WORDINGS = (
    "{number} {things} {moving}",
    "{article} {things} {moving}",
    "{article} {things} {moves}",
    "{number} {things} that {moves}",
)


@dataclasses.dataclass(frozen=True)
class Attributes:
    """Attributes of one clip."""

    count: int
    colour: str
    shape: str
    motion: str
    background: str


@dataclasses.dataclass(frozen=True)
class Sample:
    """A rendered clip: frames uint8 [t h w 3], a caption that is true of it, and its attributes."""

    frames: Frames
    caption: str
    attributes: Attributes


def caption(attributes: Attributes, wording: int) -> str:
    """One of the `len(WORDINGS)` ways to say what the clip shows; the background is left unsaid."""
    number, several = NUMBERS[attributes.count], attributes.count > 1
    article = number if several else "a"
    plural = "" if not several else "es" if attributes.shape == "cross" else "s"
    noun = f"{attributes.colour} {attributes.shape}{plural}"
    moving, *verbs = VERBS[attributes.motion]
    words = {"number": number, "article": article, "things": noun, "moving": moving, "moves": verbs[several]}
    return WORDINGS[wording].format(**words)


def prompts(world: World, seed: int, n: int, split: str) -> list[tuple[str, Attributes]]:
    """The captions and attributes of a split's first `n` clips of several frames, without drawing them."""
    return [_choose(combinations(world, split), world, _rng(seed, split, index)) for index in range(n)]


def draw(world: World, clip: ClipShape, seed: int, index: int, split: str) -> Sample:
    """Renders clip `index` of a split.

    A one-frame clip cannot show motion, so it is rendered from the split's "still" combinations alone.
    Raises UserError for frames under 32 pixels, an unknown split, or one frame of a world without still objects.
    """
    if min(clip.height, clip.width) < MIN_SIDE:
        raise UserError(f"clip {clip} is too small to draw shapes in: use {MIN_SIDE} pixels or more")
    choices = combinations(world, split)
    if clip.frames == 1:
        choices = tuple(choice for choice in choices if choice[-1] == "still")
        if not choices:
            raise UserError(f"a one-frame clip shows still objects, and the {split} split of this world has none")
    rng = _rng(seed, split, index)
    text, attributes = _choose(choices, world, rng)
    objects = _coverage(attributes, clip, world.size, rng)[..., None]
    background = _background(attributes.background, clip, rng)[None, :, :, None]
    colour = np.array(COLOURS[attributes.colour], np.float32)
    return Sample((background + objects * (colour - background) + 0.5).astype(np.uint8), text, attributes)


def coverage(shape: str, y: np.ndarray, x: np.ndarray, radius: float) -> np.ndarray:
    """Coverage of each pixel (0-1) by a shape; `y` and `x` are its offsets from the shape's centre in pixels."""
    scale = np.float32(radius)
    return np.clip(0.5 - scale * SHAPES[shape](y / scale, x / scale), 0, 1)


def _rng(seed: int, split: str, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, SPLITS.index(split), index])


def _choose(choices: tuple[Combination, ...], world: World, rng: np.random.Generator) -> tuple[str, Attributes]:
    background = world.backgrounds[rng.integers(len(world.backgrounds))]
    attributes = Attributes(*choices[rng.integers(len(choices))], background)
    return caption(attributes, int(rng.integers(len(WORDINGS)))), attributes


def _coverage(
    attributes: Attributes, clip: ClipShape, size: float, rng: np.random.Generator
) -> Float[np.ndarray, "t h w"]:
    """Coverage of each pixel by the group."""
    side = min(clip.height, clip.width)
    radius = side * size * rng.uniform(*RADII[attributes.count])
    path = side * _path(attributes.motion, clip.frames, 1 - MARGIN - 2 * REACH * radius / side, rng)
    centres = _layout(attributes.count, radius, path, clip, rng) + path[:, None]
    y, x = np.split(centres.astype(np.float32), 2, axis=-1)
    rows = np.arange(clip.height, dtype=np.float32) + 0.5 - y  # [t n h]: pixel centres relative to each object
    columns = np.arange(clip.width, dtype=np.float32) + 0.5 - x
    covered: np.ndarray = coverage(attributes.shape, rows[..., :, None], columns[..., None, :], radius).max(axis=1)
    return covered


def _path(motion: str, frames: int, room: float, rng: np.random.Generator) -> Float[np.ndarray, "t 2"]:
    """Offsets of the group from the middle of its path, at most `room` long; rows and columns in sides."""
    travel = min(rng.uniform(*TRAVEL), room)
    if motion == "circling":
        # One whole turn, either way round; the last frame stops one step short of the first.
        angle = rng.uniform(0, 2 * np.pi) + rng.choice([-1, 1]) * 2 * np.pi * np.arange(frames) / frames
        return ROUND * travel / 2 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return travel * np.outer(np.linspace(-0.5, 0.5, frames), DIRECTIONS[motion])


def _layout(count: int, radius: float, path: np.ndarray, clip: ClipShape, rng: np.random.Generator) -> np.ndarray:
    """Positions [n 2] of the objects such that none leaves the frame or comes near another anywhere on the path."""
    size = np.array([clip.height, clip.width])
    low, high = REACH * radius - path.min(axis=0), size - REACH * radius - path.max(axis=0)
    first, second = np.triu_indices(count, k=1)
    apart = 2 * REACH * radius + GAP * size.min()
    while True:  # ends: the radii leave room for every count and path
        positions = rng.uniform(low, high, (1 if count == 1 else 256, count, 2))
        distances = np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)
        clear = (distances > apart).all(axis=1)
        if clear.any():
            start: np.ndarray = positions[clear.argmax()]
            return start


def _background(kind: str, clip: ClipShape, rng: np.random.Generator) -> Float[np.ndarray, "h w"]:
    """A grey picture (0-255), smooth enough for a small VAE to code."""
    low, high = (rng.uniform(*greys) for greys in BACKGROUNDS[kind])
    side = np.float32(min(clip.height, clip.width))
    rows, columns = (np.arange(n, dtype=np.float32) / side for n in (clip.height, clip.width))

    def along(angle: float) -> np.ndarray:
        return np.float32(np.sin(angle)) * rows[:, None] + np.float32(np.cos(angle)) * columns

    angle = rng.uniform(0, 2 * np.pi)
    if kind == "gradient":
        pattern = along(angle)
        pattern = (pattern - pattern.min()) / np.ptp(pattern)
    elif kind == "stripes":
        pattern = 0.5 + 0.5 * np.tanh(3 * np.sin(2 * np.pi * rng.uniform(2.5, 4) * along(angle)))
    elif kind == "noise":
        waves = [np.sin(rng.uniform(10, 40) * along(turn) + turn * 9) for turn in angle + np.arange(8) * 2.4]
        pattern = np.clip(0.5 + sum(waves) / 8, 0, 1)
    else:
        pattern = np.zeros((clip.height, clip.width), np.float32)
    return np.float32(low) + np.float32(high - low) * pattern
