"""Reads count, colour, shape and motion back from a clip of the shape world, by classical means.

Objects are coloured and backgrounds grey, so a pixel's chroma (largest minus smallest channel) is proportional to how
much of it an object covers. Blur keeps that sum and noise hardly moves it, which lets the detector read the lossy
clips of a VAE and the samples of a model as well as rendered ones. Answers are values that the world has.
"""

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from mobile_video_jax.core.arrays import Frames
from mobile_video_jax.data.shapes.shape_world import COLOURS, DIRECTIONS, coverage
from mobile_video_jax.data.shapes.world import World

FAINT = 32  # chroma (0-255) under which a clip holds no object; rendered ones have 195
SPECKLE = 0.25  # components smaller than this share of their frame's largest one are no objects
STILL = 0.05  # a path whose points stay this near to their mean is no motion, in sides
COVER = 0.02  # objects cover more than this share of a square as wide as the shorter side
GRID = np.arange(24) - 11.5  # offsets of a patch's pixels from its middle, along one axis
UNIT = 12  # patch pixels for the square root of the area of the object in it
BLURS = (0.0, 1.0, 2.0)  # of the templates, in patch pixels


@dataclasses.dataclass(frozen=True)
class Detected:
    """Attributes that the detector reads; all None when there is no coloured object."""

    count: int | None = None
    colour: str | None = None
    shape: str | None = None
    motion: str | None = None


@dataclasses.dataclass(frozen=True)
class Objects:
    """The connected coloured regions of all frames, one row each."""

    frame: np.ndarray
    centre: np.ndarray  # row and column in pixels
    area: np.ndarray  # pixels


def detect(frames: Frames, world: World) -> Detected:
    """Reads the attributes of one clip uint8 [t h w 3]."""
    covered = _covered(frames)
    labels, regions = ndimage.label(covered > 0.5, structure=_within_frames())
    if not regions:
        return Detected()
    objects, mask = _objects(covered, labels, regions)
    side = min(frames.shape[1:3])
    return Detected(
        _count(objects, world),
        _colour(frames[mask].mean(axis=0), world),
        _shape(_mean_object(covered, objects), world),
        _motion(_path(objects) / side, world),
    )


def _covered(frames: Frames) -> Float[np.ndarray, "t h w"]:
    """Coverage of each pixel by objects (0-1): chroma between the background's and the objects' level."""
    chroma = (frames.max(axis=-1) - frames.min(axis=-1)).astype(np.float32)
    floor = np.median(chroma)
    short, long = sorted(frames.shape[1:3])
    level = np.quantile(chroma, 1 - COVER * short / long)
    if level - floor < FAINT:
        return np.zeros_like(chroma)
    coverage: np.ndarray = np.clip((chroma - floor) / (level - floor), 0, 1)
    return coverage


def _within_frames() -> np.ndarray:
    """Connects a pixel to its eight neighbours in the same frame."""
    structure = np.zeros((3, 3, 3), bool)
    structure[1] = True
    return structure


def _objects(covered: np.ndarray, labels: np.ndarray, regions: int) -> tuple[Objects, np.ndarray]:
    """The regions that are large enough, and the mask [t h w] of their pixels."""
    index = np.arange(1, regions + 1)
    area = np.bincount(labels.ravel())[1:]
    centre = np.array(ndimage.center_of_mass(covered, labels, index))
    frame = centre[:, 0].round().astype(int)
    largest = np.zeros(len(covered))
    np.maximum.at(largest, frame, area)
    large = area >= SPECKLE * np.maximum(largest[frame], np.median(largest))
    mask = np.concatenate([[False], large])[labels]
    return Objects(frame[large], centre[large, 1:], area[large]), mask


def _count(objects: Objects, world: World) -> int:
    """The world's count nearest to the usual number of objects in a frame."""
    usual = np.bincount(np.bincount(objects.frame)[np.unique(objects.frame)]).argmax()
    return min(world.counts, key=lambda count: abs(count - usual))


def _colour(rgb: np.ndarray, world: World) -> str:
    """The palette's colour whose direction away from grey is nearest; grey mixed in by blur does not turn it."""

    def direction(colour: np.ndarray) -> np.ndarray:
        tint = colour - colour.mean()
        direction: np.ndarray = tint / np.linalg.norm(tint)
        return direction

    return max(world.colours, key=lambda name: direction(np.array(COLOURS[name])) @ direction(rgb))


def _mean_object(covered: np.ndarray, objects: Objects) -> Float[np.ndarray, "h w"]:
    """All objects moved to the middle of a patch, scaled to one area and averaged, which evens out pixels and noise."""
    offsets = np.sqrt(objects.area)[:, None] * GRID / UNIT
    rows = objects.centre[:, 0, None] + offsets
    columns = objects.centre[:, 1, None] + offsets
    points = np.broadcast_arrays(objects.frame[:, None, None], rows[:, :, None], columns[:, None, :])
    profile: np.ndarray = ndimage.map_coordinates(covered, np.stack(points), order=1, mode="constant").mean(axis=0)
    return profile


def _shape(patch: np.ndarray, world: World) -> str:
    """The shape whose template, sharp or blurred, differs least from the mean object."""

    def distance(shape: str) -> float:
        rows, columns, radius = GRID[:, None], GRID[None], UNIT / 2
        trial = coverage(shape, rows, columns, radius)  # tells how large a radius gives the patch's area
        template = coverage(shape, rows, columns, radius * UNIT / float(np.sqrt(trial.sum())))
        return min(float(np.square(ndimage.gaussian_filter(template, blur) - patch).mean()) for blur in BLURS)

    return min(world.shapes, key=distance)


def _path(objects: Objects) -> Float[np.ndarray, "t 2"]:
    """The middle of the group in each frame that shows it, in pixels."""
    frames = np.unique(objects.frame)
    weight = np.bincount(objects.frame, objects.area)[frames]
    return np.stack(
        [np.bincount(objects.frame, objects.area * axis)[frames] / weight for axis in objects.centre.T], axis=1
    )


def _motion(path: np.ndarray, world: World) -> str:
    """The motion whose ideal path fits best: none, a straight one or a circle."""
    path = path - path.mean(axis=0)
    spread = np.sqrt(np.square(path).sum(axis=1).mean())
    straight = [motion for motion in world.motions if motion in DIRECTIONS and motion != "still"]
    if "still" in world.motions and (spread < STILL or world.motions == ("still",)):
        return "still"
    ramp = np.linspace(-0.5, 0.5, len(path))
    drift = ramp @ path / max(np.square(ramp).sum(), 1e-6)
    if "circling" in world.motions:
        plane = path @ np.array([1j, 1])
        turn = np.exp(2j * np.pi * np.arange(len(path)) / len(path))
        radius = max(abs((plane * turn).mean()), abs((plane / turn).mean()))
        line_miss = np.square(path - np.outer(ramp, drift)).sum(axis=1).mean()
        if not straight or spread**2 - radius**2 < line_miss:  # what a circle misses, and what a line does
            return "circling"
    return max(straight, key=lambda motion: drift @ np.array(DIRECTIONS[motion]))
