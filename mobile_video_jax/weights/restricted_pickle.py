"""Reads pickles of published weights without running their code: only allow-listed objects can be built."""

import contextlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mobile_video_jax.core.errors import UserError

Allowed = Mapping[tuple[str, str], Callable[..., Any]]


class RestrictedUnpickler(pickle.Unpickler):
    """Builds plain values and the objects in `allowed`, by module and name; any other raises UnpicklingError."""

    def __init__(self, file: BufferedIOBase, allowed: Allowed) -> None:
        super().__init__(file)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """Looks up the replacement of an object that the pickle names."""
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no weights need")
        return self._allowed[module, name]


@contextlib.contextmanager
def open_weights(path: Path) -> Iterator[BufferedIOBase]:
    """Opens a weights file. Raises UserError where it is missing, and for every exception while it is read.

    A damaged or malicious pickle may raise any exception (documentation of Python's pickle module).
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: name a file of weights")
    with path.open("rb") as file:
        try:
            yield file
        except Exception as error:
            raise UserError(f"{path} cannot be read as weights ({error}): get it from where you trust") from error


class _Dtype:
    """Replaces numpy.dtype, whose state in the file could turn bytes into pointers; numbers only."""

    def __init__(self, name: str, *_: Any) -> None:
        self.numbers = np.dtype(name)
        if self.numbers.kind not in "biuf":
            raise pickle.UnpicklingError(f"it holds an array of {name}, not of numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.numbers = self.numbers.newbyteorder(state[1])


class _Array:
    """Replaces numpy.ndarray: built from the shape, dtype, order of axes and bytes that follow in the file."""

    def __init__(self, *_: Any) -> None:
        self.numbers = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, fortran, content = state
        self.numbers = np.frombuffer(content, dtype.numbers).reshape(shape, order="F" if fortran else "C")


# Numpy 1 called numpy._core numpy.core.
NUMPY: Allowed = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


def read_arrays(path: Path) -> Any:
    """Reads a pickle of plain values and arrays of numbers. Raises UserError where it is damaged or holds more."""
    with open_weights(path) as file:
        tree = RestrictedUnpickler(file, NUMPY).load()
    return jax.tree.map(lambda leaf: leaf.numbers if isinstance(leaf, _Array) else leaf, tree)
