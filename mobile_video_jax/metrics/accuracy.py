"""Text alignment in the shape world: how many samples show what their prompts ask for."""

import math
from collections.abc import Sequence

import numpy as np

from mobile_video_jax.data.shapes.shape_world import Attributes
from mobile_video_jax.data.shapes.world import ATTRIBUTES, World
from mobile_video_jax.metrics.interval import Score
from mobile_video_jax.metrics.shape_detector import Detected, chance

Pairs = Sequence[tuple[Attributes, Detected]]


def accuracies(world: World, pairs: Pairs) -> dict[str, Score]:
    """Share of clips that are right in each attribute the world varies, and in all at once, with 95 % intervals."""
    level = chance(world)
    right = {
        name: [getattr(asked, name) == getattr(seen, name) for asked, seen in pairs]
        for name in ATTRIBUTES
        if level[name] < 1
    }
    right["all"] = [all(row) for row in zip(*right.values(), strict=True)]
    return {name: share(row) for name, row in right.items()}


def share(hits: Sequence[bool]) -> Score:
    """The share of hits with its 95 % interval."""
    value = float(np.mean(hits))
    return Score(value, *wilson_interval(value, len(hits)), n=len(hits))


def wilson_interval(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % confidence interval of a share of n trials (E. B. Wilson, JASA 22, 1927)."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)
