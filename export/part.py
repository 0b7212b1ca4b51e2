"""A network that is to be written as a function of a package, and as an entry point of an asset."""

import dataclasses
from typing import Any

import numpy as np
from torch import nn

FIRST_FUNCTION = "main"  # the name of the only function of a package or an asset
FP16, FP32 = "fp16", "fp32"
ENTRY_POINTS = {"vae_first": ("vae", "first"), "vae_next": ("vae", "next")}  # parts that are one asset

Tensors = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Part:
    """A function of a package that is to be written. The arrays fix all shapes: float32, and int32 for ids."""

    name: str  # of the package
    module: nn.Module
    inputs: Tensors  # by name, in the module's order
    outputs: Tensors  # the reference's, which the package is verified against
    function: str = FIRST_FUNCTION
    precision: str = FP16  # of weights and of the values between inputs and outputs: FP16 or FP32

    @property
    def asset(self) -> str:
        """The name of the asset that it is an entry point of."""
        return ENTRY_POINTS.get(self.name, (self.name, ""))[0]

    @property
    def entry_point(self) -> str:
        """The name of its entry point: vae_first is first of vae, or first_CLIP where clips have several shapes."""
        return joined(ENTRY_POINTS.get(self.name, ("", FIRST_FUNCTION))[1], self.function)

    @property
    def golden(self) -> str:
        """The golden file's path in the folder; an asset's entry point FN has NAME_FN.npz."""
        suffix = "" if self.function == FIRST_FUNCTION else f"_{self.function}"
        return f"golden/{self.name}{suffix}.npz"

    @property
    def entry(self) -> dict[str, Any]:
        """The function's entry in manifest.json."""
        return {
            "golden": self.golden,
            "inputs": {name: _feature(x) for name, x in self.inputs.items()},
            "outputs": {name: _feature(x) for name, x in self.outputs.items()},
        }


def joined(*names: str) -> str:
    """The name of a function that is one of several for more than one reason, such as its clip and its step."""
    return "_".join(name for name in names if name != FIRST_FUNCTION) or FIRST_FUNCTION


def dtype_of(x: np.ndarray) -> type:
    """The type that a package takes or gives an array in."""
    return np.int32 if np.issubdtype(x.dtype, np.integer) else np.float16


def _feature(x: np.ndarray) -> dict[str, Any]:
    return {"shape": list(x.shape), "dtype": np.dtype(dtype_of(x)).name}
