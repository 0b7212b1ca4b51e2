"""From a PyTorch module to a saved Core ML package."""

import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from export.compress import check, compress
from export.coreml import ct, quietly
from mobile_video_jax.core.errors import UserError

Tensors = dict[str, np.ndarray]
# Token ids are never negative, so nothing needs to guard against it.
SKIPPED_PASSES = {"common::guard_negative_gather_indices"}
OVERHEAD = 1_000_000  # bytes of a program beside its weights, for one of a thousand operations or two


@dataclasses.dataclass(frozen=True)
class Part:
    """A package to be made: a module, and its inputs and outputs by name, which fix all shapes.

    The arrays are the reference that the package is compared with: float32, and int32 for ids.
    """

    name: str
    module: nn.Module
    inputs: Tensors
    outputs: Tensors


def write_package(part: Part, out: Path, weights: str, progress: Callable[[str], None]) -> dict[str, Any]:
    """Writes OUT/NAME.mlpackage and OUT/golden/NAME.npz, and returns what the manifest says of them.

    Raises UserError for an unknown kind of weights, and for one that does not make this network smaller.
    """
    check(weights)
    path, golden = out / f"{part.name}.mlpackage", out / "golden" / f"{part.name}.npz"
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        progress(f"{part.name}: converting")
        plain = Path(temporary) / path.name
        model = convert(part, plain)
        fp16_bytes = size(plain)
        _check_size(part, fp16_bytes)
        if weights == "fp16":
            shutil.move(plain, path)
        else:
            progress(f"{part.name}: compressing to {weights}")
            compress(model, weights).save(str(path))
            if size(path) >= fp16_bytes:
                raise UserError(
                    f"{part.name} takes {size(path)} bytes with {weights}, {fp16_bytes} with fp16: use --weights=fp16"
                )
    golden.parent.mkdir(exist_ok=True)
    arrays = {f"input:{name}": x for name, x in part.inputs.items()}
    arrays |= {f"output:{name}": x for name, x in part.outputs.items()}
    np.savez(golden, allow_pickle=False, **arrays)
    progress(f"{part.name}: {size(path) / 1e6:.1f} MB")
    return {
        "name": part.name,
        "file": path.name,
        "golden": str(golden.relative_to(out)),
        "weights": weights,
        "bytes": size(path),
        "fp16_bytes": fp16_bytes,
        "sha256": digests(path),
        "inputs": {name: _described(x) for name, x in part.inputs.items()},
        "outputs": {name: _described(x) for name, x in part.outputs.items()},
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


def _check_size(part: Part, found: int) -> None:
    """Two bytes a number; more would mean that weights were stored twice or widened."""
    tensors = {x.data_ptr(): x for x in (*part.module.parameters(), *part.module.buffers())}
    expected = 2 * sum(x.numel() for x in tensors.values())
    if found > 1.02 * expected + OVERHEAD:
        raise RuntimeError(f"{part.name} takes {found} bytes, {expected} were expected of its weights in fp16")


def _dtype(x: np.ndarray) -> type:
    return np.int32 if np.issubdtype(x.dtype, np.integer) else np.float16


def _described(x: np.ndarray) -> dict[str, Any]:
    return {"shape": list(x.shape), "dtype": np.dtype(_dtype(x)).name}
