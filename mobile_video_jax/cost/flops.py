"""Parameters, FLOPs and activations, counted in the network itself rather than by formulas beside it."""

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core as jex_core

# Names the part of the network that a path of module names belongs to.
PartOf = Callable[[str], str]


def count_parameters(params: Any) -> int:
    """Number of values in a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def top_module(path: str) -> str:
    """The first name that a module was given: a whole model has only its class's, alone or with a method's."""
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

    A multiply-add is 2 FLOPs; scan bodies count once an iteration; element-wise work is left out, as in MFU.
    Arguments may be arrays or jax.ShapeDtypeStruct: nothing is computed.
    """
    totals: collections.Counter[str] = collections.Counter()
    for product in _products(function, *args):
        totals[product.scope] += product.flops
    return dict(totals)


@dataclasses.dataclass(frozen=True)
class _Product:
    """A matrix product or convolution: who runs it, its FLOPs over all iterations, bytes of one result, iterations."""

    scope: str
    flops: int
    bytes: int
    repeat: int


def _products(function: Callable[..., Any], *args: Any) -> Iterator[_Product]:
    return _walk(jax.make_jaxpr(function)(*args).jaxpr, "", 1)


def _walk(jaxpr: jex_core.Jaxpr, scope: str, repeat: int) -> Iterator[_Product]:
    for eqn in jaxpr.eqns:
        here = "/".join(part for part in (scope, str(eqn.source_info.name_stack)) if part)
        name = eqn.primitive.name
        if flops := {"dot_general": _dot_flops, "conv_general_dilated": _conv_flops}.get(name):
            out: Any = eqn.outvars[0].aval
            yield _Product(here, repeat * flops(eqn), out.size * out.dtype.itemsize, repeat)
        times = eqn.params["length"] if name == "scan" else 1
        # The last branch of lax.platform_dependent is the default: plain operations, which can be counted, unlike a
        # kernel's blocks.
        branches = eqn.params["branches"][-1:] if name == "cond" else _inner(eqn)
        for inner in branches:
            yield from _walk(getattr(inner, "jaxpr", inner), here, repeat * times)


def _inner(eqn: jex_core.JaxprEqn) -> list[Any]:
    values = [value for value in eqn.params.values() if hasattr(value, "eqns") or hasattr(value, "jaxpr")]
    return [value for value in values if not callable(value)]


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _dot_flops(eqn: jex_core.JaxprEqn) -> int:
    (contracting, _), _ = eqn.params["dimension_numbers"]
    shape = _shape(eqn.invars[0])
    return 2 * math.prod(_shape(eqn.outvars[0])) * math.prod(shape[axis] for axis in contracting)


def _conv_flops(eqn: jex_core.JaxprEqn) -> int:
    """Each output value sums over the kernel's taps and input channels (padding taps count, as in XLA's MFU use)."""
    kernel = _shape(eqn.invars[1])
    out_channels_axis = eqn.params["dimension_numbers"].rhs_spec[0]
    return 2 * math.prod(_shape(eqn.outvars[0])) * math.prod(kernel) // kernel[out_channels_axis]
