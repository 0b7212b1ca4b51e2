"""A Core ML package with weights of fewer bits."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import coremltools as ct

from export.coreml.quiet import quietly
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.weights.mixed_bits import LEAST_NUMBERS
from mobile_video_jax.weights.palette import palette

optimize = ct.optimize.coreml

DEFAULT_BITS = 6.0
BITS_RANGE, PSNR_RANGE = (4, 8), (1, 100)


@dataclasses.dataclass(frozen=True)
class Weights:
    """A kind of weights; mixed ones take DEFAULT_BITS a weight unless they have a target.

    Raises UserError for an unknown kind, for a target out of range and for one of another kind.
    """

    kind: str = "fp16"  # fp16, a key of METHODS, or mixed
    target_bits: float | None = None  # bits a weight on average
    target_psnr: float | None = None  # dB that every package reaches

    def __post_init__(self) -> None:
        if self.kind not in ("fp16", "mixed", *METHODS):
            known = ", ".join(["fp16", *METHODS, "mixed"])
            raise UserError(f"weights '{self.kind}' are unknown: use one of {known}")
        targets = [target for target in (self.target_bits, self.target_psnr) if target is not None]
        if targets and self.kind != "mixed":
            raise UserError(f"--target_bits and --target_psnr belong to --weights=mixed, not {self.kind}")
        if len(targets) > 1:
            raise UserError("set --target_bits or --target_psnr, not both")
        ranges = {"bits": (self.target_bits, *BITS_RANGE), "psnr": (self.target_psnr, *PSNR_RANGE)}
        for name, (target, low, high) in ranges.items():
            if target is not None and not low <= target <= high:
                raise UserError(f"--target_{name}={target:g} cannot be met: use {low} to {high}")


def compress(model: ct.models.MLModel, kind: str, recipe: Mapping[str, int]) -> ct.models.MLModel:
    """The model with weights of a kind of METHODS or, of kind mixed, with the bits that `recipe` gives each."""
    with quietly():
        return _palettes(model, recipe) if kind == "mixed" else METHODS[kind](model)


def _int8(model: Any) -> Any:
    """One scale for each output channel, symmetric about 0."""
    config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", weight_threshold=LEAST_NUMBERS)
    return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=config))


def _palette(bits: int) -> Callable[[Any], Any]:
    """Palettes of 2^bits numbers, one for each tensor."""

    def palettize(model: Any) -> Any:
        return optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=_table(bits)))

    return palettize


def _palettes(model: Any, recipe: Mapping[str, int]) -> Any:
    configs = {name: _table(bits) for name, bits in recipe.items() if bits < 16}
    return optimize.palettize_weights(model, optimize.OptimizationConfig(op_name_configs=configs))


def _table(bits: int) -> Any:
    # coremltools' own k-means would take minutes for a table of words.
    k_means = functools.partial(palette, bits=bits)
    return optimize.OpPalettizerConfig(mode="custom", lut_function=k_means, weight_threshold=LEAST_NUMBERS)


METHODS: dict[str, Callable[[Any], Any]] = {
    "int8": _int8,
    **{f"palette{bits}": _palette(bits) for bits in (8, 6, 4)},
}
