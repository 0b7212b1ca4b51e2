"""Widths of one transformer: networks of the first rows and columns of its matrices (SnapGen++, arXiv 2601.08303).

The network of width w has the first w of the residual channels, and in each block the first w of the heads of
self-attention and of the FFN's channels; heads of cross-attention are whole. Factors of norms and modulation are its
own, in the tree WIDTHS beside the modules of the whole network: shared ones would fit no width but one.
"""

import dataclasses
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig

Params = dict[str, Any]

WIDTHS = "widths"  # of the parameters: by the name of each width what is its own
OWN = frozenset({"q_norm", "k_norm", "k_squares_norm", "linear_norm", "cross_attention_norm", "modulation"})
MODULATED = 6  # vectors that the shared modulation's output is made of


def width_name(width: float) -> str:
    """The name of a width among parameters and metrics, in thousandths of the whole one."""
    return f"{1000 * width:.0f}"


def width_config(config: DitConfig, width: float) -> DitConfig:
    """The network of a width, a share of the whole one. Raises UserError where it leaves no whole numbers of units."""
    if config.rope_scale:
        raise UserError("heads with positions of their own (model.rope_scale) have no widths: set model.rope_scale=()")

    def share(size: int, units: str) -> int:
        part = round(size * width)
        if part < 1 or abs(part - size * width) > 1e-6:
            raise UserError(
                f"a width of {width:g} leaves {size * width:g} of {size} {units}: use one that divides them"
            )
        return part

    blocks = tuple(
        (share(shape.heads, "heads"), shape.cross_heads, share(shape.ffn, "FFN channels"))
        for shape in config.block_shapes
    )
    return dataclasses.replace(config, width=share(config.width, "channels"), depth=len(blocks), blocks=blocks)


def whole_network(params: Params) -> Params:
    """The parameters of the whole network alone."""
    return {name: value for name, value in params.items() if name != WIDTHS}


def own_params(params: Params) -> Params:
    """Those of a network's parameters that no width shares."""
    own = {path: value for path, value in flatten_dict(params).items() if not OWN.isdisjoint(path)}
    tree: Params = unflatten_dict(own)
    return tree


def sliced(params: Params, shapes: Params) -> Params:
    """The first rows and columns of a network's parameters, as many as the smaller network of `shapes` has."""
    wide = flatten_dict(params)
    parts = {path: _first(wide[path], path, leaf.shape) for path, leaf in flatten_dict(shapes).items()}
    tree: Params = unflatten_dict(parts)
    return tree


def width_params(params: Params, width: float, shapes: Params) -> Params:
    """The parameters of the network of a width: slices of the whole one's, and its own. `shapes` are its shapes."""
    own = flatten_dict(params[WIDTHS][width_name(width)])
    wide = flatten_dict(whole_network(params))
    parts = {
        path: own[path] if path in own else _first(wide[path], path, leaf.shape)
        for path, leaf in flatten_dict(shapes).items()
    }
    tree: Params = unflatten_dict(parts)
    return tree


def _first(x: Any, path: tuple[str, ...], shape: tuple[int, ...]) -> Any:
    """The first items of each axis; of an axis that holds several vectors, the first of each vector."""
    whole = x.shape
    for axis, size in enumerate(shape):
        vectors = _vectors(path, axis, whole)
        grouped = x.reshape(*x.shape[:axis], vectors, -1, *x.shape[axis + 1 :])
        first = grouped[(slice(None),) * (axis + 1) + (slice(size // vectors),)]
        x = first.reshape(*x.shape[:axis], size, *x.shape[axis + 1 :])
    return x


def _vectors(path: tuple[str, ...], axis: int, shape: tuple[int, ...]) -> int:
    """The vectors that an axis holds one behind the other: one, but for the shared modulation and for resampling."""
    if path[0] == "modulation" and axis == len(shape) - 1:
        return MODULATED
    if path[-2] == "squares":  # of dit/resolution.py: from or to the channels of a square of tokens
        return max(shape[axis] // shape[1 - axis], 1)
    return 1
