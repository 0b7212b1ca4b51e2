"""The training state and where its arrays lie."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mobile_video_jax.core.arrays import Rng
from mobile_video_jax.parallel.mesh import replicated
from mobile_video_jax.parallel.rules import parameter_shardings
from mobile_video_jax.train.stage import Stage

Tree = Any


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes. The random key of a step follows from the seed and `step`."""

    step: Tree
    params: Tree
    ema: Tree
    opt_state: Tree


def state_shardings(stage: Stage, optimizer: optax.GradientTransformation, mesh: Mesh) -> tuple[TrainState, TrainState]:
    """The state's shapes and their shardings: the moments and the average of a parameter lie where it lies."""
    boxed = jax.eval_shape(stage.init, jax.random.key(0))
    params = parameter_shardings(boxed, mesh)
    shapes = jax.eval_shape(lambda tree: new_state(tree, optimizer), nn.unbox(boxed))
    by_path = {tuple(map(str, path)): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    shape_of = {
        tuple(map(str, path)): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(nn.unbox(boxed))
    }

    def place(path: Any, leaf: Any) -> Any:
        names = tuple(map(str, path))
        for start in range(len(names)):
            tail = names[start:]
            if tail in by_path and shape_of[tail] == leaf.shape:
                return by_path[tail]
        return replicated(mesh)

    return shapes, jax.tree_util.tree_map_with_path(place, shapes)


def new_state(params: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    """Step 0: the average starts as a copy of the parameters."""
    return TrainState(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), optimizer.init(params))


def create_state(
    stage: Stage, optimizer: optax.GradientTransformation, rng: Rng, shardings: TrainState, params: Tree | None = None
) -> TrainState:
    """Builds the state directly in its shardings, from `params` or from the stage's initialisation."""
    if params is not None:
        return jax.jit(lambda tree: new_state(tree, optimizer), out_shardings=shardings)(params)
    return jax.jit(lambda key: new_state(nn.unbox(stage.init(key)), optimizer), out_shardings=shardings)(rng)
