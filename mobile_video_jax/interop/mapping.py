"""Where each parameter of a network lies among the published tensors of another implementation, both ways."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
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


# Our path, as "block_0/ffn/up/kernel" -> the published tensor, or those that are stacked where blocks are scanned.
Sources = Mapping[str, Source | tuple[Source, ...]]


def stacked(sources: Mapping[str, Source], depth: int) -> Sources:
    """The sources of a transformer whose blocks are stacked for scan, of those of one with a tree for each block."""
    first = "block_0/"
    rest = {path: source for path, source in sources.items() if not path.startswith("block_")}
    inside = [path.removeprefix(first) for path in sources if path.startswith(first)]
    return rest | {f"blocks/block/{path}": tuple(sources[f"block_{i}/{path}"] for i in range(depth)) for path in inside}


def check_names(tensors: Mapping[str, Any], sources: Sources, where: str) -> None:
    """Raises UserError, naming the tensor, unless each published tensor is the source of one parameter."""
    wanted = [source.name for group in sources.values() for source in _all(group)]
    if repeated := {name for name in wanted if wanted.count(name) > 1}:
        raise ValueError(f"{min(repeated)} is the source of two parameters")
    for name in sorted(set(wanted) - tensors.keys()):
        raise UserError(f"{where}: tensor {name} is missing: download the folder again")
    for name in sorted(tensors.keys() - set(wanted)):
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
        group = sources[path]
        own = shape.shape if isinstance(group, Source) else shape.shape[1:]
        found = [_read(tensors, source, own, where).astype(shape.dtype) for source in _all(group)]
        params[path] = place(found[0] if isinstance(group, Source) else np.stack(found), shape)
    return unflatten_dict(params, sep="/")


def published(params: Any, sources: Sources) -> dict[str, np.ndarray]:
    """The tensors under their published names: the inverse of read_params."""
    tensors = {}
    for path, x in flatten_dict(params, sep="/").items():
        group = sources[path]
        arrays = [np.asarray(x)] if isinstance(group, Source) else list(np.asarray(x))
        for source, array in zip(_all(group), arrays, strict=True):
            tensors[source.name] = np.asarray(source.turn.theirs(array), order="C")
    return tensors


def _all(group: Source | tuple[Source, ...]) -> tuple[Source, ...]:
    return (group,) if isinstance(group, Source) else group


def _read(tensors: Mapping[str, Any], source: Source, shape: tuple[int, ...], where: str) -> np.ndarray:
    name, turn = source
    tensor = np.asarray(tensors[name][...])
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise UserError(f"{where}: tensor {name} is of {tensor.dtype.name}: use weights of floating point")
    found = turn.ours(tensor)
    if found.shape != shape:
        raise UserError(f"{where}: tensor {name} has shape {tensor.shape}, which is {found.shape} here, not {shape}")
    return found
