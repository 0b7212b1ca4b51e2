"""Parameters, FLOPs and activation bytes, counted in the network itself rather than by formulas of its sizes."""

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core as jex_core

# The part of the network that a path of module names belongs to.
PartOf = Callable[[str], str]


def count_parameters(params: Any) -> int:
    """Number of values in a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def top_module(path: str) -> str:
    """The first name of a submodule in a path; the whole model's is its class's, alone or with a method's."""
    names = [name for name in path.split("/") if not re.fullmatch(r"[A-Z]\w*(\..*)?", name)]
    return names[0] if names else "other"


def parameters_by_part(params: Any, part_of: PartOf = top_module) -> dict[str, int]:
    """Parameter counts by part of the network, and their total."""
    paths = jax.tree_util.tree_leaves_with_path(params)
    counts = {jax.tree_util.keystr(path, simple=True, separator="/"): math.prod(leaf.shape) for path, leaf in paths}
    return _sums(counts, part_of)


def flops_by_part(function: Callable[..., Any], *args: Any, part_of: PartOf = top_module) -> dict[str, int]:
    """FLOPs of function(*args) by part of the network, and their total; see count_flops."""
    return _sums(count_flops(function, *args), part_of)


def _sums(values: dict[str, int], part_of: PartOf) -> dict[str, int]:
    parts: collections.Counter[str] = collections.Counter()
    for path, value in values.items():
        parts[part_of(path)] += value
    return {"total": sum(values.values()), **dict(sorted(parts.items()))}


def largest_products(function: Callable[..., Any], *args: Any, part_of: PartOf = top_module) -> dict[str, int]:
    """Bytes of the largest result of a matrix product or convolution in each part of the network."""
    largest: dict[str, int] = {}
    for product in _products(function, *args):
        part = part_of(product.scope)
        largest[part] = max(product.bytes, largest.get(part, 0))
    return dict(sorted(largest.items()))


def written_bytes(function: Callable[..., Any], *args: Any) -> int:
    """Bytes of the results of all matrix products and convolutions of function(*args)."""
    return sum(product.repeat * product.bytes for product in _products(function, *args))


def count_flops(function: Callable[..., Any], *args: Any) -> dict[str, int]:
    """FLOPs of the matrix products and convolutions of function(*args), by the module scope that runs them.

    A multiply-add is 2 FLOPs; scan bodies count once an iteration; element-wise operations are not counted, as in MFU.
    Arguments may be arrays or jax.ShapeDtypeStruct: nothing is computed.
    """
    totals: collections.Counter[str] = collections.Counter()
    for product in _products(function, *args):
        totals[product.scope] += product.flops
    return dict(totals)


@dataclasses.dataclass(frozen=True)
class _Product:
    """A matrix product or convolution."""

    scope: str  # path of the module that runs it
    flops: int  # of all iterations
    bytes: int  # of the result of one iteration
    repeat: int  # iterations


def _products(function: Callable[..., Any], *args: Any) -> Iterator[_Product]:
    return _walk(jax.make_jaxpr(function)(*args).jaxpr, "", 1)


def _walk(jaxpr: jex_core.Jaxpr, scope: str, repeat: int) -> Iterator[_Product]:
    for eqn in jaxpr.eqns:
        here = "/".join(part for part in (scope, str(eqn.source_info.name_stack)) if part)
        name = eqn.primitive.name
        if name in PRODUCT_FLOPS:
            out: Any = eqn.outvars[0].aval
            yield _Product(here, repeat * PRODUCT_FLOPS[name](eqn), out.size * out.dtype.itemsize, repeat)
        times = eqn.params["length"] if name == "scan" else 1
        for inner in inner_jaxprs(eqn):
            yield from _walk(inner, here, repeat * times)


def inner_jaxprs(eqn: jex_core.JaxprEqn) -> list[jex_core.Jaxpr]:
    """The jaxprs that an equation runs.

    Of lax.platform_dependent it is the default, its last branch: plain operations can be counted, unlike a kernel's
    blocks.
    """
    values = eqn.params["branches"][-1:] if eqn.primitive.name == "cond" else eqn.params.values()
    inner = [getattr(value, "jaxpr", value) for value in values if not callable(value)]
    return [jaxpr for jaxpr in inner if hasattr(jaxpr, "eqns")]


def shape_of(variable: Any) -> tuple[int, ...]:
    """The shape of a variable or literal of a jaxpr."""
    shape: tuple[int, ...] = variable.aval.shape
    return shape


def size_of(variable: Any) -> int:
    """The number of values of a variable or literal of a jaxpr."""
    return math.prod(shape_of(variable))


def _dot_flops(eqn: jex_core.JaxprEqn) -> int:
    (contracting, _), _ = eqn.params["dimension_numbers"]
    shape = shape_of(eqn.invars[0])
    return 2 * size_of(eqn.outvars[0]) * int(math.prod(shape[axis] for axis in contracting))


def _conv_flops(eqn: jex_core.JaxprEqn) -> int:
    """Each output value sums over the kernel's taps and input channels (padding taps count, as in XLA's MFU use)."""
    kernel = shape_of(eqn.invars[1])
    out_channels: int = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    return 2 * size_of(eqn.outvars[0]) * math.prod(kernel) // out_channels


# FLOPs of an equation by its primitive; a multiply-add is 2.
PRODUCT_FLOPS: dict[str, Callable[[jex_core.JaxprEqn], int]] = {
    "dot_general": _dot_flops,
    "conv_general_dilated": _conv_flops,
}
