"""Features of networks of different kinds, compared through linear projections that are trained with the student."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import LatentMask
from mobile_video_jax.nn.dense import Dense

Map = Float[Array, "b t _ _ _"]  # features on a latent grid, or on one whose rows and columns are a fraction of it
Maps = tuple[Map, ...]
EPS = 1e-6  # keeps the error relative to a teacher of zeros finite


class Projectors(nn.Module):
    """A linear map from each of a student's feature maps to the teacher's width."""

    width: int

    @nn.compact
    def __call__(self, maps: Sequence[Map]) -> tuple[Map, ...]:
        return tuple(Dense(self.width, (None, None), name=f"map_{i}")(x) for i, x in enumerate(maps))


def matched_maps(count: int, teacher_maps: Sequence[Map]) -> tuple[Map, ...]:
    """As many of the teacher's maps, spread evenly, the last to the last."""
    last = [round((i + 1) * len(teacher_maps) / count) - 1 for i in range(count)]
    return tuple(teacher_maps[max(i, 0)] for i in last)


def projected_errors(
    student: Sequence[Map], teacher: Sequence[Map], mask: LatentMask | None = None
) -> Float[Array, "b"]:
    """Mean over maps of |h_S - h_T|^2 / |h_T|^2 of each clip, over frames that are not padding alone.

    The teacher's map is averaged to the student's rows and columns.
    """
    errors = []
    for own, taught in zip(student, teacher, strict=True):
        target = _averaged(taught.astype(jnp.float32), own.shape[2:4])
        weights = jnp.ones(own.shape[:2]) if mask is None else mask[:, :, 0, 0]
        weights = weights[:, :, None, None, None]
        error = jnp.sum(weights * (own.astype(jnp.float32) - target) ** 2, axis=(1, 2, 3, 4))
        errors.append(error / (jnp.sum(weights * target**2, axis=(1, 2, 3, 4)) + EPS))
    return jnp.mean(jnp.stack(errors), axis=0)


def _averaged(x: Map, grid: tuple[int, ...]) -> Map:
    b, t, h, w, d = x.shape
    rows, columns = grid
    return jnp.mean(x.reshape(b, t, rows, h // rows, columns, w // columns, d), axis=(3, 5))
