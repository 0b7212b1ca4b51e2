"""Weights of fewer bits in a Core ML package."""

from collections.abc import Callable
from typing import Any

from export.coreml import ct, quietly
from mobile_video_jax.core.errors import UserError

optimize = ct.optimize.coreml

# Tensors below this many numbers stay as they are: tables and norms, whose bytes are few and whose errors are many.
SMALLEST = 2048


def compress(model: ct.models.MLModel, weights: str) -> ct.models.MLModel:
    """The model with weights of one of the kinds of METHODS. Raises UserError for another kind."""
    check(weights)
    with quietly():
        return METHODS[weights](model)


def check(weights: str) -> None:
    """Raises UserError for an unknown kind of weights."""
    if weights != "fp16" and weights not in METHODS:
        raise UserError(f"weights '{weights}' are unknown: use one of fp16, {', '.join(METHODS)}")


def _int8(model: Any) -> Any:
    """One scale for each output channel, symmetric about 0."""
    config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", weight_threshold=SMALLEST)
    return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=config))


def _palette(bits: int) -> Callable[[Any], Any]:
    """Each weight is one of 2^bits numbers, a table for each tensor, found by k-means."""

    def palettize(model: Any) -> Any:
        config = optimize.OpPalettizerConfig(mode="kmeans", nbits=bits, weight_threshold=SMALLEST)
        return optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=config))

    return palettize


METHODS: dict[str, Callable[[Any], Any]] = {
    "int8": _int8,
    **{f"palette{bits}": _palette(bits) for bits in (8, 6, 4)},
}
