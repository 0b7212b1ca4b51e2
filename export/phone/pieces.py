"""Functions of tokens that run on as many of them at a time as stay on the chip."""

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mobile_video_jax.cost.phone.tiles import pieces, spans

Tokens = Float[Tensor, "1 _ 1 _"]


def piecewise(function: Callable[..., Tokens], *tensors: Tokens) -> Tokens:
    """The function of tensors of the same tokens, or of a vector for all of them; its result is joined."""
    _, channels, _, tokens = static_shape(tensors[0])
    own = spans(tokens, min(pieces(tokens * channels), tokens))
    if len(own) == 1:
        return function(*tensors)
    whole = [static_shape(x)[3] == 1 for x in tensors]

    def part(span: slice) -> Tokens:
        return function(*(x if one else x[..., span] for x, one in zip(tensors, whole, strict=True)))

    return torch.cat([part(span) for span in own], dim=3)


def static_shape(x: Tensor) -> tuple[int, ...]:
    """The shape as numbers of Python, also in a trace, which warns that they are constants of its graph: they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Converting a tensor to a Python integer")
        return tuple(int(size) for size in x.shape)
