"""Choice of what the steps of a table do without, by scores, until a share of the cost is saved."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.step_table import BOTH, CAPTION, CHUNK, COMPUTED, MODULES, NULL, OUT, StepTable
from mobile_video_jax.lazy.costs import ModuleCosts

# By whether the half with captions and the one without are reused.
REUSED = {(False, False): COMPUTED, (True, False): CAPTION, (False, True): NULL, (True, True): BOTH}

REUSING_CHUNKS = 0.5  # share of a stream's chunks that have outputs of the chunk before


class Chosen(NamedTuple):
    """A table, and the score of the last module that it does without, or the error by which the table was chosen."""

    table: StepTable
    threshold: float


def check_target(
    target: float, costs: ModuleCosts, steps: int, *, first: bool, chunks: float = 1.0, flag: str = "--target"
) -> None:
    """Raises UserError for a share that no table saves.

    The first step may do without modules if `first`; of a stream's chunks a share may.
    """
    most = chunks * (steps if first else steps - 1) / steps * costs.modules.sum() / costs.whole
    if not 0 < target < most:
        raise UserError(f"{flag}={target:g} is out of reach: {steps} steps save more than 0 and less than {most:.3f}")


def reuse_by_score(scores: Float[np.ndarray, "s l 2 h"], costs: ModuleCosts, target: float) -> Chosen:
    """Reuses the modules of the highest scores, of each of the h halves of guidance, at all steps but the first."""
    values = np.array(scores, np.float64)
    values[0] = -np.inf
    halves = scores.shape[-1]
    mask, threshold = _until(-values, np.broadcast_to(costs.modules[None, :, :, None], scores.shape), target, costs)
    letter = lambda caption, null: REUSED[bool(caption), bool(null)]
    return Chosen(_table(mask[..., 0], mask[..., halves - 1], letter), -threshold)


def leave_out_by_rise(rises: Float[np.ndarray, "s l 2"], costs: ModuleCosts, target: float) -> Chosen:
    """Leaves out the modules whose absence raises the loss least for what they cost."""
    mask, threshold = _until(rises / costs.modules, np.broadcast_to(costs.modules, rises.shape), target, costs)
    return Chosen(_table(mask, mask, lambda out, _: OUT if out else COMPUTED), threshold)


def reuse_across_chunks(changes: Float[np.ndarray, "s l 2"], costs: ModuleCosts, target: float) -> Chosen:
    """Reuses of the chunk before the modules that change a step's update least for what they cost."""
    saved = REUSING_CHUNKS * np.broadcast_to(costs.modules, changes.shape)
    mask, threshold = _until(changes / costs.modules, saved, target, costs)
    return Chosen(_table(mask, mask, lambda reused, _: CHUNK if reused else COMPUTED), threshold)


def _until(
    order: Float[np.ndarray, "*n"], saved: Float[np.ndarray, "*n"], target: float, costs: ModuleCosts
) -> tuple[np.ndarray, float]:
    """The mask of the first entries by `order` that save the target's share, and the order of the last of them."""
    ranks = np.argsort(order, axis=None, kind="stable")
    evaluations = order.size / costs.modules.size
    totals = np.cumsum(saved.reshape(-1)[ranks]) / (evaluations * costs.whole)
    count = int(np.searchsorted(totals, target * (1 - 1e-9))) + 1
    mask = np.zeros(order.size, bool)
    mask[ranks[:count]] = True
    return mask.reshape(order.shape), float(order.reshape(-1)[ranks[count - 1]])


def _table(first: np.ndarray, second: np.ndarray, letter: Callable[[bool, bool], str]) -> StepTable:
    """A table of the letters of two masks [s l 2]."""
    steps = zip(first.reshape(-1, _width(first)), second.reshape(-1, _width(second)), strict=True)
    return tuple("".join(letter(*pair) for pair in zip(*step, strict=True)) for step in steps)


def _width(mask: np.ndarray) -> int:
    return int(mask.shape[1]) * len(MODULES)
