"""Arrays by shape and sharding alone: what is to be restored or compiled for."""

from typing import Any

import jax
from jax.sharding import NamedSharding


def abstract(shape: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    """The shape and dtype of `shape`, an array or a description of one, with the sharding that it shall have."""
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
