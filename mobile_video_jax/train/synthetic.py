"""Random batches of a stage's shapes, `data=synthetic`, to time steps before there are data."""

from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.parallel.mesh import batch_shard

SYNTHETIC = "synthetic"


def synthetic_batches(shapes: dict[str, Any], mesh: Mesh) -> grain.IterDataset:
    """One batch of the global shapes over and over, as far as it is this process's share."""
    _, count = batch_shard(mesh)
    rng = np.random.default_rng(0)
    batch = {name: _random(rng, shape, shape.shape[0] // count) for name, shape in shapes.items()}
    batch["record"] = np.arange(len(next(iter(batch.values()))), dtype=np.int64)
    return grain.MapDataset.source([0]).repeat().map(lambda _: dict(batch)).to_iter_dataset()


def check_not_synthetic(config: dict[str, Any], name: str) -> None:
    """Raises UserError for the config of a run that was trained on random batches, which nothing can be told of."""
    if config.get("data") == SYNTHETIC:
        raise UserError(
            f"{name} was trained on synthetic batches, to time its steps: name a run that was trained on data"
        )


def _random(rng: np.random.Generator, shape: jax.ShapeDtypeStruct, rows: int) -> np.ndarray:
    size = (rows, *shape.shape[1:])
    if shape.dtype == jnp.bool_:
        return np.ones(size, bool)
    if jnp.issubdtype(shape.dtype, jnp.integer):
        return rng.integers(0, 255, size).astype(shape.dtype)
    return rng.standard_normal(size, np.float32).astype(shape.dtype)
