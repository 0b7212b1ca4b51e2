"""Networks without the programs that no test looks at: shapes by tracing, numbers by numpy, one jitted apply."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.nn.module import apply, init

# apply(module, params, *args, method=None), compiled once for equal modules and shapes.
run = jax.jit(apply, static_argnums=0, static_argnames="method")


def normal(seed: int, *shape: int) -> jax.Array:
    """Standard normal values."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def params_like(module: nn.Module, *example: Any, scale: float = 0.1, seed: int = 1) -> Any:
    """Random parameters of the module, without the zeros of a fresh one, which would hide paths from the gradient."""
    return randomly(jax.eval_shape(lambda *example: init(module, jax.random.key(0), *example), *example), scale, seed)


def randomly(shapes: Any, scale: float = 0.1, seed: int = 1) -> Any:
    """Parameters of these shapes: norms' factors vary about 1, all else about 0."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: Any) -> jax.Array:
        return jnp.asarray(rng.normal(float(path[-1].key == "scale"), scale, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, nn.unbox(shapes))
