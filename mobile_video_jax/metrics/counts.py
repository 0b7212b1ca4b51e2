"""The least number of clips that a metric needs."""

import numpy as np

from mobile_video_jax.core.errors import UserError


def check_count(metric: str, needed: int, *sets: np.ndarray) -> None:
    """Raises UserError when one of the sets of clips, or of their features, has fewer than the metric needs."""
    fewest = min(len(clips) for clips in sets)
    if fewest < needed:
        raise UserError(f"{metric} needs sets of at least {needed} clips; the smallest has {fewest}: add clips")
