"""The training state and its shardings."""

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
    """The state's shapes and their shardings: a parameter's optimizer moments and average are sharded like it."""
    params = parameter_shardings(stage.boxed_shapes, mesh)
    shapes = jax.eval_shape(lambda tree: new_state(stage, tree, optimizer), stage.shapes)
    by_path = {_names(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    shape_of = {_names(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(stage.shapes)}

    def sharding_of(path: Any, leaf: Any) -> Any:
        names = _names(path)
        for start in range(len(names)):
            tail = names[start:]
            if tail in by_path and shape_of[tail] == leaf.shape:
                return by_path[tail]
        return replicated(mesh)

    shardings = jax.tree_util.tree_map_with_path(sharding_of, shapes)
    return shapes, shardings.replace(ema=stage.ema_params(params))


def _names(path: Any) -> tuple[str, ...]:
    return tuple(map(str, path))


def trainable(stage: Stage, params: Tree) -> Tree:
    """The parts of the parameters that the optimizer changes."""
    return {part: tree for part, tree in params.items() if part not in stage.frozen}


def new_state(stage: Stage, params: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    """Step 0: the EMA parameters start as a copy of the parameters."""
    average = jax.tree.map(jnp.copy, stage.ema_params(params))
    return TrainState(jnp.zeros((), jnp.int32), params, average, optimizer.init(trainable(stage, params)))


def inference_params(stage: Stage, state: TrainState) -> Tree:
    """EMA parameters, with frozen parts taken from the live parameters: the EMA may not hold them."""
    return state.ema | {part: state.params[part] for part in stage.frozen & state.ema.keys()}


def create_state(
    stage: Stage, optimizer: optax.GradientTransformation, rng: Rng, shardings: TrainState, pretrained: Tree
) -> TrainState:
    """Builds the state directly in its shardings: parts in `pretrained` as loaded, all others initialised."""

    def create(key: Rng, pretrained: Tree) -> TrainState:
        return new_state(stage, nn.unbox(stage.init(key)) | pretrained, optimizer)

    state: TrainState = jax.jit(create, out_shardings=shardings)(rng, pretrained)
    return state


def frozen_parts(stage: Stage, rng: Rng, shardings: Tree, target: Tree) -> Tree:
    """The frozen parts as they were when the run began: pretrained, or initialised from the same key."""
    names = stage.frozen & target.keys()
    parts = stage.pretrained({part: target[part] for part in names}) if names else {}
    if missing := names - parts.keys():
        initialise = jax.jit(
            lambda key: {part: nn.unbox(stage.init(key))[part] for part in missing},
            out_shardings={part: shardings[part] for part in missing},
        )
        parts = parts | initialise(rng)
    return parts
