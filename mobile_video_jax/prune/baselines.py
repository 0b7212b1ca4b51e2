"""Baselines of sensitivity: scores by the size of weights, and by chance."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float64

from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.dit.stacking import unstack_blocks
from mobile_video_jax.prune.search import ScoreUnits
from mobile_video_jax.prune.units import Unit, Units, head_modules


def magnitude(params: Any, units: Units) -> ScoreUnits:
    """Scores a unit by the sum of its squared weights (Han et al., arXiv 1506.02626, for whole structures)."""
    unrolled = unstack_blocks(params) if units.config.scan else params
    squares = jax.tree.map(lambda x: np.square(np.asarray(x, np.float64)), unrolled)

    def score(keep: Masks, scored: Sequence[Unit]) -> Float64[np.ndarray, "u"]:
        return np.array([_unit_sum(squares[f"block_{unit.block}"], unit, units) for unit in scored])

    return score


def chance(seed: int) -> ScoreUnits:
    """Scores units at random."""
    rng = np.random.default_rng(seed)
    return lambda keep, scored: rng.random(len(scored))


def _unit_sum(block: Any, unit: Unit, units: Units) -> float:
    if unit.kind == "block":
        return float(sum(leaf.sum() for leaf in jax.tree.leaves(block)))
    size = units.group if unit.kind == "ffn" else units.config.head_dim
    part = slice(unit.number * size, (unit.number + 1) * size)
    if unit.kind == "ffn":
        into, out = (block["ffn"]["up"],), block["ffn"]["down"]
    else:
        attention = block["self_attention" if unit.kind == "heads" else "cross_attention"]
        into, out = tuple(attention[name] for name in head_modules(units.config)), attention["out"]
    return float(sum(leaf[..., part].sum() for dense in into for leaf in dense.values()) + out["kernel"][part].sum())
