"""Tokens of a grid averaged over squares of neighbours within a frame, and repeated."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from mobile_video_jax.nn.attention.config import Grid
from mobile_video_jax.nn.embeddings import RopeTable

Tokens = Float[Array, "b n d"]
Mask = Bool[Array, "b n"]
LowRope = tuple[Float[Array, "low *heads half"], Float[Array, "low *heads half"]]


def squares(x: Shaped[Array, "b n *rest"], grid: Grid, size: int) -> Shaped[Array, "b low square *rest"]:
    """Tokens by squares of size x size neighbours, row-major."""
    frames, height, width = grid
    x = x.reshape(len(x), frames, height // size, size, width // size, size, *x.shape[2:])
    x = jnp.moveaxis(x, 3, 4)
    return x.reshape(len(x), -1, size * size, *x.shape[6:])


def from_squares(x: Shaped[Array, "b low square *rest"], grid: Grid, size: int) -> Shaped[Array, "b n *rest"]:
    """Inverse of `squares`; `grid` is that of the tokens."""
    frames, height, width = grid
    x = x.reshape(len(x), frames, height // size, width // size, size, size, *x.shape[3:])
    return jnp.moveaxis(x, 4, 3).reshape(len(x), -1, *x.shape[6:])


def pooled(x: Tokens, grid: Grid, size: int, mask: Mask | None = None) -> Float[Array, "b low d"]:
    """Means of the squares, over tokens that are not padding; 0 where all are."""
    groups = squares(x, grid, size)
    if mask is None:
        return jnp.mean(groups.astype(jnp.float32), axis=2).astype(x.dtype)
    weights = squares(mask, grid, size)[..., None].astype(jnp.float32)
    total = jnp.sum(groups * weights, axis=2) / jnp.maximum(jnp.sum(weights, axis=2), 1)
    return total.astype(x.dtype)


def pooled_mask(mask: Mask | None, grid: Grid, size: int) -> Bool[Array, "b low"] | None:
    """True for squares with a token that is not padding."""
    return None if mask is None else jnp.any(squares(mask, grid, size), axis=2)


def upsampled(x: Float[Array, "b low d"], grid: Grid, size: int) -> Tokens:
    """Each token repeated over its square of the grid."""
    frames, height, width = grid
    x = x.reshape(len(x), frames, height // size, 1, width // size, 1, -1)
    shape = (len(x), frames, height // size, size, width // size, size, x.shape[-1])
    return jnp.broadcast_to(x, shape).reshape(len(x), -1, x.shape[-1])


def strided_rope(rope: RopeTable, grid: Grid, size: int) -> LowRope:
    """The table of the first position of each square: squares are `size` positions apart."""
    cos, sin = (part.reshape(*grid, *part.shape[1:])[:, ::size, ::size] for part in rope)
    return cos.reshape(-1, *cos.shape[3:]), sin.reshape(-1, *sin.shape[3:])
