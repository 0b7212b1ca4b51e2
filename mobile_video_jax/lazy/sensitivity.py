"""Sensitivity of a few-step student to its modules at each of its steps, by the scores of pruning."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mobile_video_jax.core.progress import Progress
from mobile_video_jax.dit.masks import Masks
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.step_table import MODULES
from mobile_video_jax.prune.calibration import Calibration
from mobile_video_jax.prune.memo import LossFile
from mobile_video_jax.prune.sensitivity import Scorer
from mobile_video_jax.prune.units import Units

KINDS = {"self_attention": "heads", "ffn": "ffn"}  # the masks of a module


def without(units: Units, removed: Sequence[tuple[int, str]]) -> Masks:
    """The masks of the whole model without these modules."""
    masks = units.all()
    for block, name in removed:
        getattr(masks, KINDS[name])[block] = 0
    return masks


def loss_rises(
    dit: Dit,
    params: Any,
    states: Float[np.ndarray, "s b lt lh lw c"],
    times: Float[np.ndarray, "s"],
    captions: dict[str, jax.Array],
    memo: Callable[[int], LossFile],
) -> Float[np.ndarray, "s l 2"]:
    """The rise of the distillation loss (prune/sensitivity.py) at each step's states without each module.

    `memo(i)` holds the losses of step i that are known.
    """
    units = Units(dit.config, 1)
    depth = len(units.shapes)
    keeps = [units.all(), *(without(units, [(block, name)]) for block in range(depth) for name in MODULES)]
    progress, rises = Progress("sensitivity:", len(times)), []
    for i, (x_t, t) in enumerate(zip(states, times, strict=True)):
        batch = Calibration(jnp.asarray(x_t), jnp.full(len(x_t), t), captions["text"], captions["text_mask"])
        losses = Scorer(dit=dit, params=params, units=units, batches=[batch], memo=memo(i)).losses(keeps)
        rises.append((losses[1:] - losses[0]).reshape(depth, len(MODULES)))
        progress.report(i + 1, "steps")
    return np.stack(rises)


def losses_file(out: Path, fingerprint: str) -> Callable[[int], LossFile]:
    """The files of known losses in a folder, one for each step."""
    return lambda step: LossFile(out / f"losses_{step}.jsonl", f"{fingerprint}-{step}")
