"""Reads the tensors of a PyTorch file without PyTorch, and without running what its pickle asks for.

Both layouts of torch.save: a zip (since version 1.6), and one pickle after another (before; torchvision's VGG-16 and
the heads of LPIPS have it).
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

from mobile_video_jax.weights.restricted_pickle import Allowed, RestrictedUnpickler, reading

MAGIC = 0x1950A86A20F9469CFC6C  # the first value of a file of the old layout

Tensor = Float32[np.ndarray, "..."]
Storages = dict[str, bytes]


@dataclasses.dataclass(frozen=True)
class _View:
    """A tensor: where its numbers lie in which storage."""

    storage: str
    start: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Parameter:
    """A parameter as versions before 0.4 wrote it: the tensor, and flags that only training needs."""

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
        """The name of a storage, whose numbers are read apart."""
        return pid[2]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dictionary saved by torch.save, by name.

    Raises UserError for a file that is missing or damaged, or holds anything but contiguous float32 tensors.
    """
    with reading(path) as file:
        tensors, storages = (_read_zip if zipfile.is_zipfile(file) else _read_old)(file)
        return {name: _take(value, storages, name) for name, value in tensors.items()}


def _read_zip(file: BufferedIOBase) -> tuple[Any, Storages]:
    with zipfile.ZipFile(file) as archive:
        # Every member lies in one folder, which has the name of the file that was saved.
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


def _take(value: Any, storages: Storages, name: str) -> Tensor:
    view = value.data if isinstance(value, _Parameter) else value
    if not isinstance(view, _View):
        raise ValueError(f"{name} is no tensor")
    steps = [math.prod(view.shape[axis + 1 :]) for axis in range(len(view.shape))]
    if any(size > 1 and step != found for size, step, found in zip(view.shape, steps, view.stride, strict=True)):
        raise ValueError(f"{name} is not contiguous")
    # Read as a whole and cut by numpy, which stays within the bytes there are whatever the file says.
    numbers = np.frombuffer(storages[view.storage], "<f4")
    return numbers[view.start : view.start + math.prod(view.shape)].reshape(view.shape)
