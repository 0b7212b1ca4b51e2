"""Runs a saved asset in Apple's runtime, on this machine's CPU."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from coreai.authoring import AIModelAsset
from coreai.runtime import NDArray

from export.golden import Feature
from export.part import FIRST_FUNCTION
from mobile_video_jax.core.errors import UserError

PROGRAM, HASH = "main.mlirb", "main.hash"


class Asset:
    """A loaded asset; as a context it is released at the end.

    Raises UserError for a folder that is no asset, is damaged, or is of a version that this runtime does not read.
    """

    def __init__(self, path: Path):
        check_asset(path)
        self.path, self._runner, self._stack = path, asyncio.Runner(), contextlib.AsyncExitStack()
        try:
            executable = AIModelAsset.load(path).executable()
            self._model = self._runner.run(self._stack.enter_async_context(executable))
        except RuntimeError as error:
            self._runner.close()
            known = f"coreai-core {version('coreai-core')}"
            raise UserError(f"{path} cannot be loaded by {known} ({error}): export the run again") from error

    def __enter__(self) -> "Asset":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    @property
    def functions(self) -> list[str]:
        """The names of the entry points."""
        return sorted(self._model.function_names)

    @property
    def bytes(self) -> int:
        """Bytes of the asset's files."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def function(self, name: str | None = None) -> "Function":
        """An entry point: the one of that name, main, or the only one. Raises UserError where there is none."""
        known = self.functions
        name = name or (FIRST_FUNCTION if FIRST_FUNCTION in known else known[0] if len(known) == 1 else "")
        if name not in known:
            raise UserError(f"{self.path} has the functions {', '.join(known)}: name one with --function")
        with silent():
            return Function(name, self._model.load_function(name), self._runner)


class Function:
    """An entry point of a loaded asset."""

    def __init__(self, name: str, function: Any, runner: asyncio.Runner):
        self.name, self._function, self._runner = name, function, runner
        about = function.desc
        self.inputs = {each: _feature(about.input_descriptor(each)) for each in about.input_names}
        self.outputs = {each: _feature(about.output_descriptor(each)) for each in about.output_names}

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name, in the asset's types."""
        arrays = {
            name: NDArray(np.ascontiguousarray(inputs[name], feature.dtype)) for name, feature in self.inputs.items()
        }
        with silent():
            outputs = self._runner.run(self._function(inputs=arrays))
        return {name: np.array(x.numpy()) for name, x in outputs.items()}


def check_asset(path: Path) -> None:
    """Raises UserError for a folder that is no asset, or whose program is not the one that was written.

    The runtime itself would end the process at a damaged program.
    """
    program, digest = path / PROGRAM, path / HASH
    if not program.is_file():
        raise UserError(f"{path} is no Core AI asset: it has no {PROGRAM}")
    with program.open("rb") as file:
        if not digest.is_file() or hashlib.file_digest(file, "sha256").digest() != digest.read_bytes():
            raise UserError(f"{path} is damaged: {PROGRAM} is not what was written, copy or export it again")


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Hides the runtime's log, which it writes straight to file 2."""
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _feature(descriptor: Any) -> Feature:
    return Feature(tuple(descriptor.shape), np.dtype(str(descriptor.dtype)))
