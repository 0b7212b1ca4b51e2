"""Reads pickles of published weights without running what they ask for: only named objects can be built."""

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
    """Builds plain values and the objects of `allowed`, by module and name; any other raises UnpicklingError."""

    def __init__(self, file: BufferedIOBase, allowed: Allowed) -> None:
        super().__init__(file)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """What is built where the pickle asks for this object."""
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no weights need")
        return self._allowed[module, name]


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BufferedIOBase]:
    """Opens a file of weights. Raises UserError where it is missing, and for whatever goes wrong while it is read.

    A damaged or malicious pickle may end in any exception, as Python's manual of pickle says.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: name a file of weights")
    with path.open("rb") as file:
        try:
            yield file
        except Exception as error:
            raise UserError(f"{path} cannot be read as weights ({error}): get it from where you trust") from error


class _Dtype:
    """The kind of an array's numbers; numpy's own takes flags from the file, which could make pointers of bytes."""

    def __init__(self, name: str, *_: Any) -> None:
        self.numbers = np.dtype(name)
        if self.numbers.kind not in "biuf":
            raise pickle.UnpicklingError(f"it holds an array of {name}, not of numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.numbers = self.numbers.newbyteorder(state[1])


class _Array:
    """An array, filled from the shape, the kind, the order of axes and the bytes that follow in the file."""

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
    """Reads a pickle of plain values and arrays of numbers. Raises UserError for one that is damaged or holds more."""
    with reading(path) as file:
        tree = RestrictedUnpickler(file, NUMPY).load()
    return jax.tree.map(lambda leaf: leaf.numbers if isinstance(leaf, _Array) else leaf, tree)
