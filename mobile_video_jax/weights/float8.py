"""Tensors of 8-bit floating point in safetensors files, which NumPy does not know, with the scales beside them."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.errors import UserError

FLOAT8 = {"F8_E4M3": jnp.float8_e4m3fn, "F8_E5M2": jnp.float8_e5m2}
# The scale of X.weight is X.scale_weight or X.weight_scale (ComfyUI); scales of activations are not used.
SCALES = ("scale_weight", "weight_scale")
UNUSED = ("scale_input", "input_scale", "scaled_fp8")


class Float8:
    """A tensor of a file, read as float32 when it is sliced, times its scale."""

    def __init__(self, file: Path, name: str, scale: Any = None):
        self.file, self.name, self.scale = file, name, scale
        self._header = _read_header(file)

    def get_dtype(self) -> str:
        """The dtype's name in the file's header."""
        return str(self._header[self.name]["dtype"])

    def get_shape(self) -> list[int]:
        """The tensor's shape."""
        return list(self._header[self.name]["shape"])

    def __getitem__(self, index: Any) -> np.ndarray:
        start, shape = self._header[self.name]["data_offsets"][0], self.get_shape()
        offset = start + self._header["start"]
        values = np.fromfile(self.file, np.uint8, math.prod(shape), offset=offset).view(FLOAT8[self.get_dtype()])
        tensor = values.reshape(shape).astype(np.float32)
        if self.scale is not None:
            scale = np.asarray(self.scale[...], np.float32)
            # A scalar, or one for each output channel.
            tensor = tensor * scale.reshape(scale.size, *[1] * (len(shape) - 1))
        selected: np.ndarray = tensor[index]
        return selected


def scaled(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors with fp8 ones times the scales beside them, which are left out, as are scales of activations.

    Raises UserError for a scale of neither one value nor one for each output channel.
    """
    if not any(isinstance(x, Float8) for x in tensors.values()):
        return dict(tensors)
    result = {name: x for name, x in tensors.items() if name.rpartition(".")[2] not in (*SCALES, *UNUSED)}
    for name, x in tensors.items():
        stem, _, leaf = name.rpartition(".")
        weight = f"{stem}.weight".lstrip(".")
        if leaf not in SCALES or not isinstance(result.get(weight), Float8):
            continue
        if math.prod(x.get_shape()) not in (1, result[weight].get_shape()[0]):
            raise UserError(f"tensor {name} of shape {x.get_shape()} is no scale of {weight}: use other weights")
        result[weight] = Float8(result[weight].file, weight, x)
    return result


def _read_header(file: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file, with `start`, the offset of its data in bytes."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header: dict[str, Any] = json.loads(opened.read(length))
    return header | {"start": 8 + length}
