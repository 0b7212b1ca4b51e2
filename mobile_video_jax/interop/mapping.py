"""Mapping between a network's parameters and the published tensors of another implementation, both ways."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.weights.float8 import FLOAT8

Convert = Callable[[np.ndarray], np.ndarray]


class Layout(NamedTuple):
    """Conversions of a tensor from the published layout to ours and back, inverse to the bit."""

    to_ours: Convert
    to_published: Convert


AS_IS = Layout(lambda x: x, lambda x: x)
# PyTorch stores a linear layer's weight as [out, in], flax as [in, out]; a 3-D convolution's as [out, in, t, h, w],
# flax as [t, h, w, in, out].
LINEAR = Layout(np.transpose, np.transpose)
CONV = Layout(lambda x: x.transpose(2, 3, 4, 1, 0), lambda x: x.transpose(4, 3, 0, 1, 2))


ALIGNMENT = 64  # bytes
# The dtypes of a safetensors file that are read.
DTYPES = {"F64", "F32", "F16", "BF16", *FLOAT8}


class Source(NamedTuple):
    """The published name of a parameter, and the layout of its tensor."""

    name: str
    layout: Layout = AS_IS


# Our path, such as "block_0/ffn/up/kernel" -> the published tensor, or one per block where blocks are scanned.
Sources = Mapping[str, Source | tuple[Source, ...]]


def stacked(sources: Mapping[str, Source], depth: int) -> Sources:
    """Sources of a transformer with blocks stacked for scan, from those of one with a tree per block."""
    rest = {path: source for path, source in sources.items() if not path.startswith("block_")}
    in_block = [path.removeprefix("block_0/") for path in sources if path.startswith("block_0/")]
    blocks = {f"blocks/block/{path}": tuple(sources[f"block_{i}/{path}"] for i in range(depth)) for path in in_block}
    return rest | blocks


def check_names(tensors: Mapping[str, Any], sources: Sources, where: str) -> None:
    """Raises UserError, naming the tensor, unless each one is a parameter's source, and of floating point."""
    expected = [source.name for group in sources.values() for source in _as_tuple(group)]
    if repeated := {name for name in expected if expected.count(name) > 1}:
        raise ValueError(f"{min(repeated)} is the source of two parameters")
    for name in sorted(set(expected) - tensors.keys()):
        raise UserError(f"{where}: tensor {name} is missing: download the folder again")
    for name in sorted(tensors.keys() - set(expected)):
        raise UserError(f"{where}: tensor {name} has no place in the network: the folder is of another model")
    for name, x in tensors.items():
        if hasattr(x, "get_dtype") and (dtype := x.get_dtype()) not in DTYPES:
            raise UserError(f"{where}: tensor {name} is of {dtype}: quantised weights are not read, use floating point")


def check_shapes(tensors: Mapping[str, Any], sources: Sources, shapes: Any, where: str) -> None:
    """Raises UserError as read_params does for a tensor of another shape, without reading any."""
    for path, shape in flatten_dict(shapes, sep="/").items():
        group = sources[path]
        stacked_axes = 0 if isinstance(group, Source) else 1
        for source in _as_tuple(group):
            published = tuple(tensors[source.name].get_shape())
            _laid_out(np.broadcast_to(np.False_, published), source, shape.shape[stacked_axes:], where)


def read_params(
    tensors: Mapping[str, Any],
    sources: Sources,
    shapes: Any,
    where: str,
    put: Callable[[np.ndarray, Any], Any] = lambda x, shape: x,
) -> Any:
    """Reads published tensors one by one as parameters with the tree and shapes of `shapes`.

    Beside the parameters there is one tensor in memory.

    `put(array, shape)` moves each parameter to its devices. Raises UserError naming a tensor that is missing, unused,
    not floating point, or of another shape.
    """
    check_names(tensors, sources, where)
    params = {}
    for path, shape in flatten_dict(shapes, sep="/").items():
        group, array = sources[path], _aligned(shape.shape, shape.dtype)
        if isinstance(group, Source):
            array[...] = _read(tensors, group, shape.shape, where)
        else:
            for i, source in enumerate(group):
                array[i] = _read(tensors, source, shape.shape[1:], where)
        params[path] = put(array, shape)
    return unflatten_dict(params, sep="/")


def _aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Memory that a CPU device takes as it is: JAX copies arrays that do not start at a multiple of 64 bytes."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    array: np.ndarray = memory[start : start + size].view(dtype).reshape(shape)
    return array


def published(params: Any, sources: Sources) -> dict[str, np.ndarray]:
    """Parameters as tensors under their published names: the inverse of read_params."""
    tensors = {}
    for path, x in flatten_dict(params, sep="/").items():
        group = sources[path]
        arrays = [np.asarray(x)] if isinstance(group, Source) else list(np.asarray(x))
        for source, array in zip(_as_tuple(group), arrays, strict=True):
            tensors[source.name] = np.asarray(source.layout.to_published(array), order="C")
    return tensors


def _as_tuple(group: Source | tuple[Source, ...]) -> tuple[Source, ...]:
    return (group,) if isinstance(group, Source) else group


def _read(tensors: Mapping[str, Any], source: Source, shape: tuple[int, ...], where: str) -> np.ndarray:
    tensor = np.asarray(tensors[source.name][...])
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise UserError(f"{where}: tensor {source.name} is of {tensor.dtype.name}: use weights of floating point")
    return _laid_out(tensor, source, shape, where)


def _laid_out(tensor: np.ndarray, source: Source, shape: tuple[int, ...], where: str) -> np.ndarray:
    """The tensor in our layout. Raises UserError where it is not of that shape then."""
    try:
        ours = source.layout.to_ours(tensor)
    except (ValueError, IndexError):  # a layout of other axes or channels
        raise UserError(f"{where}: tensor {source.name} has shape {tensor.shape}, which becomes no {shape}") from None
    if ours.shape != shape:
        raise UserError(
            f"{where}: tensor {source.name} has shape {tensor.shape}, which is {ours.shape} here, not {shape}"
        )
    return ours
