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
    shapes = jax.eval_shape(lambda tree: new_state(stage, tree, optimizer), nn.unbox(boxed))
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

    return shapes, jax.tree_util.tree_map_with_path(place, shapes).replace(ema=stage.model(params))


def trainable(stage: Stage, params: Tree) -> Tree:
    """The parts of the parameters that the optimizer changes."""
    return {part: tree for part, tree in params.items() if part not in stage.frozen}


def new_state(stage: Stage, params: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    """Step 0: the average starts as a copy of the model."""
    average = jax.tree.map(jnp.copy, stage.model(params))
    return TrainState(jnp.zeros((), jnp.int32), params, average, optimizer.init(trainable(stage, params)))


def usable(stage: Stage, state: TrainState) -> Tree:
    """The averaged model, with its frozen parts as they are: the model may have left them empty."""
    return state.ema | {part: state.params[part] for part in stage.frozen & state.ema.keys()}


def create_state(
    stage: Stage, optimizer: optax.GradientTransformation, rng: Rng, shardings: TrainState, given: Tree
) -> TrainState:
    """Builds the state directly in its shardings: parts in `given` as they are, the others drawn at random."""

    def create(key: Rng, given: Tree) -> TrainState:
        return new_state(stage, nn.unbox(stage.init(key)) | given, optimizer)

    return jax.jit(create, out_shardings=shardings)(rng, given)


def frozen_parts(stage: Stage, rng: Rng, shardings: Tree, target: Tree) -> Tree:
    """The parts that are not trained, as they were when the run began: given, or drawn from the same key."""
    names = stage.frozen & target.keys()
    given = stage.given({part: target[part] for part in names}) if names else {}
    if missing := names - given.keys():
        draw = jax.jit(
            lambda key: {part: nn.unbox(stage.init(key))[part] for part in missing},
            out_shardings={part: shardings[part] for part in missing},
        )
        given = given | draw(rng)
    return given
