"""From a PyTorch module to a saved Core ML package."""

import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch
from torch import nn

from export.coreml.compress import Weights, compress
from export.coreml.mixed_bits import Recipe, recipe
from export.coreml.quiet import quietly
from export.mil.golden import INPUT, OUTPUT
from export.mil.load import FIRST_FUNCTION
from mobile_video_jax.core.errors import UserError

Tensors = dict[str, np.ndarray]
Record = dict[str, Any]
# Token ids are never negative, so nothing needs to guard against it.
SKIPPED_PASSES = {"common::guard_negative_gather_indices"}
OVERHEAD = 1_000_000  # bytes of a program beside its weights, for one of a thousand operations or two
PLAIN = "fp16"  # the folder of packages before their weights are compressed


@dataclasses.dataclass(frozen=True)
class Part:
    """A function of a package to be made: a module, and its inputs and outputs by name, which fix all shapes.

    The arrays are the reference that the package is compared with: float32, and int32 for ids.
    """

    name: str
    module: nn.Module
    inputs: Tensors
    outputs: Tensors
    function: str = FIRST_FUNCTION


def write_package(parts: Sequence[Part], out: Path, weights: Weights, progress: Callable[[str], None]) -> Record:
    """Writes OUT/NAME.mlpackage of functions that share weights, and golden arrays; returns what manifest.json says.

    Of compressed weights OUT/fp16/NAME.mlpackage is the package before. Raises UserError for a kind of weights that
    does not make this network smaller.
    """
    name, small = parts[0].name, weights.kind != "fp16"
    path = out / f"{name}.mlpackage"
    plain = out / PLAIN / path.name if small else path
    plain.parent.mkdir(exist_ok=True)
    chosen: Recipe = {}
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        before, after = (Path(temporary) / kind for kind in ("before", "after"))
        before.mkdir()
        models = {}
        for part in parts:
            progress(f"{name}: converting{f' {part.function}' * (len(parts) > 1)}")
            models[part.function] = convert(part, before / f"{part.function}.mlpackage")
        if small:
            progress(f"{name}: compressing to {weights.kind}")
            chosen = _recipe(parts[0], models[parts[0].function], weights)
            for function, model in models.items():
                compress(model, weights.kind, chosen).save(str(after / f"{function}.mlpackage"))
            _save_functions(after, list(models), path)
        _save_functions(before, list(models), plain)  # models read their weights from there
    _check_size(parts, size(plain))
    if small and size(path) >= size(plain):
        raise UserError(
            f"{name} takes {size(path)} bytes with {weights.kind}, {size(plain)} with fp16: use --weights=fp16"
        )
    progress(f"{name}: {size(path) / 1e6:.1f} MB")
    return {
        "name": name,
        "file": path.name,
        "weights": weights.kind,
        "bytes": size(path),
        "fp16_bytes": size(plain),
        "sha256": digests(path),
        "functions": {part.function: _described(part, out) for part in parts},
        **({"bits": chosen} if chosen else {}),
    }


def convert(part: Part, path: Path) -> Any:
    """Writes the module as a package of static shapes for iOS 18, fp16 in and out, and returns coremltools' model."""
    # torch.tensor copies: a trace needs contiguous examples.
    examples = tuple(torch.tensor(x) for x in part.inputs.values())
    pipeline = ct.PassPipeline.DEFAULT
    pipeline.remove_passes(SKIPPED_PASSES)
    with quietly(), torch.inference_mode():
        traced = torch.jit.trace(part.module.eval(), examples, check_trace=False)
        return ct.convert(
            traced,
            inputs=[ct.TensorType(name, x.shape, _dtype(x)) for name, x in part.inputs.items()],
            outputs=[ct.TensorType(name, dtype=np.float16) for name in part.outputs],
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=ct.precision.FLOAT16,
            compute_units=ct.ComputeUnit.CPU_AND_NE,
            pass_pipeline=pipeline,
            skip_model_load=True,
            package_dir=str(path),
        )


def size(package: Path) -> int:
    """Bytes of a package's files."""
    return sum(file.stat().st_size for file in _files(package))


def digests(package: Path) -> dict[str, str]:
    """The SHA-256 of each of a package's files, by its path in the package."""
    found = {}
    for file in _files(package):
        with file.open("rb") as opened:
            found[str(file.relative_to(package))] = hashlib.file_digest(opened, "sha256").hexdigest()
    return found


def _files(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*") if path.is_file())


def _recipe(part: Part, model: Any, weights: Weights) -> Recipe:
    return recipe(part.module, list(part.inputs.values()), model, weights) if weights.kind == "mixed" else {}


def _save_functions(folder: Path, functions: Sequence[str], path: Path) -> None:
    """Moves FOLDER/FUNCTION.mlpackage to the path; several become one package that holds equal weights once."""
    if len(functions) == 1:
        shutil.move(folder / f"{functions[0]}.mlpackage", path)
        return
    descriptor = ct.utils.MultiFunctionDescriptor()
    for function in functions:
        descriptor.add_function(str(folder / f"{function}.mlpackage"), FIRST_FUNCTION, function)
    descriptor.default_function_name = functions[0]
    with quietly():
        ct.utils.save_multifunction(descriptor, str(path))


def _check_size(parts: Sequence[Part], found: int) -> None:
    """Two bytes a number; more would mean that weights were stored twice or widened."""
    tensors = {x.data_ptr(): x for x in (*parts[0].module.parameters(), *parts[0].module.buffers())}
    # Other functions add their tables, such as those of places.
    tables = {x.data_ptr(): x for part in parts[1:] for x in part.module.buffers()}
    expected = 2 * sum(x.numel() for x in (*tensors.values(), *tables.values()))
    if found > 1.02 * expected + OVERHEAD * len(parts):
        raise RuntimeError(f"{parts[0].name} takes {found} bytes, {expected} were expected of its weights in fp16")


def _described(part: Part, out: Path) -> dict[str, Any]:
    """Writes the function's golden arrays and tells its features."""
    several = "" if part.function == FIRST_FUNCTION else f".{part.function}"
    golden = out / "golden" / f"{part.name}{several}.npz"
    golden.parent.mkdir(exist_ok=True)
    write_golden(golden, part.inputs, part.outputs)
    return {
        "golden": str(golden.relative_to(out)),
        "inputs": {name: _feature(x) for name, x in part.inputs.items()},
        "outputs": {name: _feature(x) for name, x in part.outputs.items()},
    }


def write_golden(path: Path, inputs: Tensors, outputs: Tensors) -> None:
    """Writes arrays under input:NAME and output:NAME."""
    arrays = {f"{INPUT}{name}": x for name, x in inputs.items()} | {f"{OUTPUT}{name}": x for name, x in outputs.items()}
    np.savez(path, allow_pickle=False, **arrays)


def _dtype(x: np.ndarray) -> type:
    return np.int32 if np.issubdtype(x.dtype, np.integer) else np.float16


def _feature(x: np.ndarray) -> dict[str, Any]:
    return {"shape": list(x.shape), "dtype": np.dtype(_dtype(x)).name}
