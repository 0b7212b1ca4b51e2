"""Reads the tensors of a PyTorch file without PyTorch, and without running its pickle's code.

Both layouts of torch.save: a zip archive (since version 1.6), and one pickle after another (before; used by
torchvision's VGG-16 and the heads of LPIPS).
"""

import dataclasses
import math
import zipfile
from collections import OrderedDict
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from mobile_video_jax.weights.restricted_pickle import Allowed, RestrictedUnpickler, open_weights

MAGIC = 0x1950A86A20F9469CFC6C  # the first value of a file of the old layout

Tensor = Float32[np.ndarray, "..."]
Storages = dict[str, bytes]


@dataclasses.dataclass(frozen=True)
class _View:
    """A tensor as a view of a storage: first element, shape and strides, counted in elements."""

    storage: str
    start: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Parameter:
    """A parameter as PyTorch before 0.4 stored it: the tensor, and flags for training."""

    data: _View | None

    def __new__(cls, data: _View | None = None) -> "_Parameter":  # pickles may make objects without __init__
        self = super().__new__(cls)
        self.data = data
        return self

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.data = self.data or state[0]


def _rebuild(storage: str, start: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _View:
    return _View(storage, start, shape, stride)


ALLOWED: Allowed = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "FloatStorage"): np.float32,
    ("torch._utils", "_rebuild_tensor"): _rebuild,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch.nn.parameter", "Parameter"): _Parameter,
}


class _TorchUnpickler(RestrictedUnpickler):
    def __init__(self, file: BufferedIOBase) -> None:
        super().__init__(file, ALLOWED)

    def persistent_load(self, pid: tuple[Any, ...]) -> str:
        """The key of a storage, whose elements are read separately."""
        key: str = pid[2]
        return key


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a state dictionary that torch.save wrote.

    Raises UserError for a file that is missing or damaged, or holds anything but contiguous float32 tensors.
    """
    with open_weights(path) as file:
        tensors, storages = (_read_zip if zipfile.is_zipfile(file) else _read_old)(file)
        return {name: _tensor(value, storages, name) for name, value in tensors.items()}


def _read_zip(file: BufferedIOBase) -> tuple[Any, Storages]:
    with zipfile.ZipFile(file) as archive:
        # All members are in one folder, named after the file that was saved.
        members = {name.partition("/")[2]: name for name in archive.namelist()}
        tensors = _TorchUnpickler(BytesIO(archive.read(members["data.pkl"]))).load()
        keys = {name.removeprefix("data/"): full for name, full in members.items() if name.startswith("data/")}
        return tensors, {key: archive.read(full) for key, full in keys.items()}


def _read_old(file: BufferedIOBase) -> tuple[Any, Storages]:
    file.seek(0)
    if _TorchUnpickler(file).load() != MAGIC:
        raise ValueError("torch.save did not write it")
    _version, _system, tensors, keys = (_TorchUnpickler(file).load() for _ in range(4))
    return tensors, {key: file.read(4 * int.from_bytes(file.read(8), "little")) for key in keys}


def _tensor(value: Any, storages: Storages, name: str) -> Tensor:
    view = value.data if isinstance(value, _Parameter) else value
    if not isinstance(view, _View):
        raise ValueError(f"{name} is not a tensor")
    steps = [math.prod(view.shape[axis + 1 :]) for axis in range(len(view.shape))]
    if any(size > 1 and step != stride for size, step, stride in zip(view.shape, steps, view.stride, strict=True)):
        raise ValueError(f"{name} is not contiguous")
    # Numpy's slicing stays within the storage, whatever start and shape the file claims.
    storage = np.frombuffer(storages[view.storage], "<f4")
    return storage[view.start : view.start + math.prod(view.shape)].reshape(view.shape)
