"""Parameter and FLOP counts, read from the network itself rather than from formulas beside it."""

import collections
import math
import re
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core as jex_core


def count_parameters(params: Any) -> int:
    """Number of values in a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def parameters_by_part(params: Any) -> dict[str, int]:
    """Parameter counts by part of the network, and their total."""
    paths = jax.tree_util.tree_leaves_with_path(params)
    return _by_part({"/".join(str(key.key) for key in path): math.prod(leaf.shape) for path, leaf in paths})


def flops_by_part(function: Callable[..., Any], *args: Any) -> dict[str, int]:
    """FLOPs of function(*args) by part of the network, and their total; see count_flops."""
    return _by_part(count_flops(function, *args))


def _by_part(values: dict[str, int]) -> dict[str, int]:
    """Sums over repeated blocks: a part is the first name of a path that is not a whole model's or a block's."""
    parts: collections.Counter[str] = collections.Counter()
    for path, value in values.items():
        names = [name for name in path.split("/") if not re.fullmatch(r"(Dit|Vae)(\..*)?|blocks?|block_\d+", name)]
        parts[names[0] if names else "other"] += value
    return {"total": sum(values.values()), **dict(sorted(parts.items()))}


def count_flops(function: Callable[..., Any], *args: Any) -> dict[str, int]:
    """FLOPs of the matrix products and convolutions of function(*args), by the module scope that runs them.

    A multiply-add is 2 FLOPs; scan bodies count once an iteration; element-wise work is left out, as in MFU.
    Arguments may be arrays or jax.ShapeDtypeStruct: nothing is computed.
    """
    totals: collections.Counter[str] = collections.Counter()
    _walk(jax.make_jaxpr(function)(*args).jaxpr, "", 1, totals)
    return dict(totals)


def _walk(jaxpr: jex_core.Jaxpr, scope: str, repeat: int, totals: collections.Counter[str]) -> None:
    for eqn in jaxpr.eqns:
        here = "/".join(part for part in (scope, str(eqn.source_info.name_stack)) if part)
        name = eqn.primitive.name
        if name == "dot_general":
            totals[here] += repeat * _dot_flops(eqn)
        elif name == "conv_general_dilated":
            totals[here] += repeat * _conv_flops(eqn)
        times = eqn.params["length"] if name == "scan" else 1
        branches = eqn.params["branches"][:1] if name == "cond" else _inner(eqn)
        for inner in branches:
            _walk(getattr(inner, "jaxpr", inner), here, repeat * times, totals)


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
