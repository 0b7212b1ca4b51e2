"""Weights of fewer bits in a Core ML package."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import coremltools as ct

from export.coreml.palette import palette
from export.coreml.quiet import quietly
from mobile_video_jax.core.errors import UserError

optimize = ct.optimize.coreml

# Tensors below this many numbers stay as they are: tables and norms, whose bytes are few and whose errors are many.
SMALLEST = 2048
DEFAULT_BITS = 6.0


@dataclasses.dataclass(frozen=True)
class Weights:
    """A kind of weights; of `mixed` ones also the bits a weight that they take on average, or the PSNR they reach.

    Raises UserError for an unknown kind, and for targets that no palette meets or that do not belong to the kind.
    """

    kind: str = "fp16"
    target_bits: float | None = None
    target_psnr: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("fp16", "mixed", *METHODS):
            known = ", ".join(["fp16", *METHODS, "mixed"])
            raise UserError(f"weights '{self.kind}' are unknown: use one of {known}")
        targets = [target for target in (self.target_bits, self.target_psnr) if target is not None]
        if targets and self.kind != "mixed":
            raise UserError(f"--target_bits and --target_psnr belong to --weights=mixed, not {self.kind}")
        if len(targets) > 1:
            raise UserError("set --target_bits or --target_psnr, not both")
        if self.target_bits is not None and not 4 <= self.target_bits <= 8:
            raise UserError(f"--target_bits={self.target_bits:g} cannot be met: use 4 to 8")


def compress(model: ct.models.MLModel, kind: str, recipe: Mapping[str, int]) -> ct.models.MLModel:
    """The model with weights of a kind of METHODS, or each with the bits that `recipe` names."""
    with quietly():
        return _palettes(model, recipe) if kind == "mixed" else METHODS[kind](model)


def _int8(model: Any) -> Any:
    """One scale for each output channel, symmetric about 0."""
    config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", weight_threshold=SMALLEST)
    return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=config))


def _palette(bits: int) -> Callable[[Any], Any]:
    """Each weight is one of 2^bits numbers, a table for each tensor."""

    def palettize(model: Any) -> Any:
        return optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=_table(bits)))

    return palettize


def _palettes(model: Any, recipe: Mapping[str, int]) -> Any:
    configs = {name: _table(bits) for name, bits in recipe.items() if bits < 16}
    return optimize.palettize_weights(model, optimize.OptimizationConfig(op_name_configs=configs))


def _table(bits: int) -> Any:
    # coremltools' own k-means would take minutes for a table of words.
    find = functools.partial(palette, bits=bits)
    return optimize.OpPalettizerConfig(mode="custom", lut_function=find, weight_threshold=SMALLEST)


METHODS: dict[str, Callable[[Any], Any]] = {
    "int8": _int8,
    **{f"palette{bits}": _palette(bits) for bits in (8, 6, 4)},
}
