"""Where each parameter of a network lies among the published tensors of another implementation, both ways."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mobile_video_jax.core.errors import UserError

Turned = Callable[[np.ndarray], np.ndarray]


class Turn(NamedTuple):
    """How a published tensor becomes ours, and back; one undoes the other to the bit."""

    ours: Turned
    theirs: Turned


AS_IS = Turn(lambda x: x, lambda x: x)
# PyTorch keeps a linear layer's weight as [out, in], flax as [in, out]; a 3-D convolution's as [out, in, t, h, w],
# flax as [t, h, w, in, out].
LINEAR = Turn(np.transpose, np.transpose)
CONV = Turn(lambda x: x.transpose(2, 3, 4, 1, 0), lambda x: x.transpose(4, 3, 0, 1, 2))


class Source(NamedTuple):
    """The published name of a parameter, and how its tensor is turned."""

    name: str
    turn: Turn = AS_IS


# Our path, as "block_0/ffn/up/kernel" -> the published tensor.
Sources = Mapping[str, Source]


def check_names(tensors: Mapping[str, Any], sources: Sources, where: str) -> None:
    """Raises UserError, naming the tensor, unless each published tensor is the source of one parameter."""
    wanted = {source.name for source in sources.values()}
    if len(wanted) < len(sources):
        raise ValueError("two parameters have one source")
    for name in sorted(wanted - tensors.keys()):
        raise UserError(f"{where}: tensor {name} is missing: download the folder again")
    for name in sorted(tensors.keys() - wanted):
        raise UserError(f"{where}: tensor {name} has no place in the network: the folder is of another model")


def read_params(
    tensors: Mapping[str, Any],
    sources: Sources,
    shapes: Any,
    where: str,
    place: Callable[[np.ndarray, Any], Any] = lambda x, shape: x,
) -> Any:
    """The parameters, in the tree and the shapes of `shapes`, of published tensors that are read one by one.

    `place(array, shape)` puts each where it shall lie. Raises UserError naming a tensor that is missing, left over, not
    of floating point, or of another shape.
    """
    check_names(tensors, sources, where)
    params = {}
    for path, shape in flatten_dict(shapes, sep="/").items():
        name, turn = sources[path]
        tensor = np.asarray(tensors[name][...])
        if not np.issubdtype(tensor.dtype, np.floating) and tensor.dtype.name != "bfloat16":
            raise UserError(f"{where}: tensor {name} is of {tensor.dtype.name}: use weights of floating point")
        found = turn.ours(tensor)
        if found.shape != shape.shape:
            raise UserError(
                f"{where}: tensor {name} has shape {tensor.shape}, which is {found.shape} here, not {shape.shape}"
            )
        params[path] = place(found.astype(shape.dtype), shape)
    return unflatten_dict(params, sep="/")


def published(params: Any, sources: Sources) -> dict[str, np.ndarray]:
    """The tensors under their published names: the inverse of read_params."""
    return {
        sources[path].name: np.ascontiguousarray(sources[path].turn.theirs(np.asarray(x)))
        for path, x in flatten_dict(params, sep="/").items()
    }
