"""Differences between two models on the same prompts and noise, with intervals."""

from collections.abc import Mapping, Sequence

import numpy as np

from mobile_video_jax.metrics.interval import mean_score
from mobile_video_jax.studies.table import Row

# Ones and zeros, clip by clip, by arm and seed.
Hits = Mapping[tuple[str, int], np.ndarray]


def hits_by_arm(results: Sequence[Row], key: str) -> Hits:
    """The lists of ones and zeros under `key` of all results."""
    return {(result["arm"], result["seed"]): np.array(result[key], np.float64) for result in results}


def difference(hits: Hits, arm: str, other: str) -> str:
    """Points of an arm's share of hits less another's, with the 95 % interval; empty where a cell is missing.

    The interval is over seeds, or of one seed over prompts.
    """
    pairs = [ones - hits[other, seed] for (name, seed), ones in hits.items() if name == arm and (other, seed) in hits]
    if not pairs:
        return ""
    score = mean_score(100 * (np.array([pair.mean() for pair in pairs]) if len(pairs) > 1 else pairs[0]))
    ends = "" if score.low is None else f" ({score.low:+.1f} to {score.high:+.1f})"
    return f"{score.value:+.1f}{ends}"
