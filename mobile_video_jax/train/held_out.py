"""Held-out metrics as means in which every clip counts once."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Rng, Scalar
from mobile_video_jax.parallel.mesh import put_batch
from mobile_video_jax.train.stage import Batch, Metrics, Params, Stage

WEIGHT = "weight"  # of a held-out batch's clips [b]: 0 for one that fills the batch up and counts elsewhere, else 1


def mean_over_clips(values: Float[Array, "b"], batch: Batch) -> Scalar:
    """The mean over the clips of a held-out batch that count."""
    return jnp.sum(values * batch[WEIGHT]) / jnp.sum(batch[WEIGHT])


def evaluator(stage: Stage, **shardings: Any) -> Callable[[Params, Batch, Rng], tuple[Metrics, Scalar]]:
    """The compiled function to a batch's metrics and the number of its clips that count."""

    def evaluate(params: Params, batch: Batch, rng: Rng) -> tuple[Metrics, Scalar]:
        return stage.evaluate_batch(params, batch, rng), jnp.sum(batch[WEIGHT])

    return jax.jit(evaluate, **shardings)


def held_out_metrics(stage: Stage, params: Params) -> dict[str, float]:
    """The means over a stage's held-out clips, for parameters that lie on a mesh; noise is the same every time."""
    mesh = jax.tree.leaves(params)[0].sharding.mesh
    evaluate, rows = evaluator(stage), []
    for i, batch in enumerate(stage.eval_batches(mesh)):
        batch.pop("record")
        rows.append(evaluate(params, put_batch(batch, mesh), jax.random.key(i)))
    return means(rows)


def means(batches: Sequence[tuple[Metrics, Scalar]]) -> dict[str, float]:
    """The means over all clips of what `evaluator` returned for some batches; empty for none."""
    rows, counts = zip(*jax.device_get(list(batches)), strict=True) if batches else ((), ())
    return {name: float(np.average([row[name] for row in rows], weights=counts)) for name in (rows[0] if rows else ())}
