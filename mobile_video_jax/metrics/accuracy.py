"""Text alignment in the shape world: the share of clips that show what their prompts ask for."""

import math
from collections.abc import Sequence

import numpy as np

from mobile_video_jax.data.shapes.shape_world import Attributes
from mobile_video_jax.data.shapes.world import ATTRIBUTES, World
from mobile_video_jax.metrics.interval import Score
from mobile_video_jax.metrics.metric import SHARE, Metric
from mobile_video_jax.metrics.shape_detector import Detected

Pairs = Sequence[tuple[Attributes, Detected]]  # prompted and detected attributes

ALL = "all"  # every attribute of a clip at once
ACCURACIES = {
    name: Metric(
        key=f"accuracy_{name}",
        name=f"accuracy {name}",
        meaning="share of clips whose attribute a rule-based detector reads as the caption asks",
        unit=SHARE,
        more_is_better=True,
    )
    for name in (*ATTRIBUTES, ALL)
}


def attributes_right(world: World, prompted: Attributes, detected: Detected) -> dict[str, bool]:
    """True where a clip shows what its prompt says, in each attribute that the world varies and in all at once."""
    varied = [name for name in ATTRIBUTES if len(world.values(name)) > 1]
    right = {name: getattr(prompted, name) == getattr(detected, name) for name in varied}
    return {**right, ALL: all(right.values())}


def accuracies(world: World, pairs: Pairs) -> dict[str, Score]:
    """Share of clips that are right in each attribute the world varies, and in all at once, with 95 % intervals."""
    rows = [attributes_right(world, prompted, detected) for prompted, detected in pairs]
    return {name: share([row[name] for row in rows]) for name in rows[0]}


def chance(world: World) -> dict[str, float]:
    """The accuracies of guessing."""
    level = {name: 1 / len(world.values(name)) for name in ATTRIBUTES if len(world.values(name)) > 1}
    return {**level, ALL: math.prod(level.values())}


def share(hits: Sequence[bool]) -> Score:
    """The share of hits with its 95 % interval."""
    value = float(np.mean(hits))
    return Score(value, *wilson_interval(value, len(hits)), n=len(hits))


def wilson_interval(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % confidence interval of a share of n trials (E. B. Wilson, JASA 22, 1927)."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)
