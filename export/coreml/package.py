"""Saved Core ML packages of PyTorch modules."""

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

from export.coreml.compress import Weights, compress
from export.coreml.mixed_bits import recipe
from export.coreml.quiet import quietly
from export.metadata import Metadata
from export.part import FIRST_FUNCTION, FP16, FP32, Part, dtype_of
from export.phone.text import PhoneText
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.weights.mixed_bits import Recipe

Record = dict[str, Any]
# Token ids are never negative.
SKIPPED_PASSES = {"common::guard_negative_gather_indices"}
OVERHEAD = 1_000_000  # bytes beside the weights of a program of one or two thousand operations, at most
MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
UNCOMPRESSED = "fp16"  # the folder of packages before their weights are compressed


def write_package(
    parts: Sequence[Part], out: Path, weights: Weights, metadata: Metadata, progress: Callable[[str], None]
) -> Record:
    """Writes OUT/NAME.mlpackage of functions that share weights, and returns its entry in manifest.json.

    Before weights are compressed the package is written to OUT/fp16/NAME.mlpackage; one in fp32 is not compressed, and
    lies there too. Raises UserError for a kind of weights that does not make this network smaller.
    """
    name, kind = parts[0].name, weights.kind if parts[0].precision == FP16 else FP32
    compressed = kind not in (FP16, FP32)
    path = out / f"{name}.mlpackage"
    uncompressed = out / UNCOMPRESSED / path.name if compressed else path
    uncompressed.parent.mkdir(exist_ok=True)
    bits: Recipe = {}
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        before, after = (Path(temporary) / kind for kind in ("before", "after"))
        before.mkdir()
        models = {}
        for part in parts:
            progress(f"{name}: converting{f' {part.function}' * (len(parts) > 1)}")
            models[part.function] = convert(part, before / f"{part.function}.mlpackage")
        if compressed:
            progress(f"{name}: compressing to {weights.kind}")
            bits = _recipe(parts, models, weights)
            for function, model in models.items():
                compress(model, weights.kind, bits).save(str(after / f"{function}.mlpackage"))
            _save_functions(after, list(models), path)
        _save_functions(before, list(models), uncompressed)  # last: models read their weights from there
    check_size(parts, size(uncompressed))
    _describe(path, dataclasses.replace(metadata, weights=kind))
    if kind == FP32 and weights.kind != FP16:
        (out / UNCOMPRESSED).mkdir(exist_ok=True)
        (out / UNCOMPRESSED / path.name).symlink_to(Path("..", path.name), target_is_directory=True)
    if compressed and size(path) >= size(uncompressed):
        raise UserError(
            f"{name} takes {size(path)} bytes with {weights.kind}, {size(uncompressed)} with fp16: use --weights=fp16"
        )
    progress(f"{name}: {size(path) / 1e6:.1f} MB")
    return {
        "name": name,
        "file": path.name,
        "weights": kind,
        "bytes": size(path),
        "fp16_bytes": size(uncompressed),
        "sha256": digests(path),
        "functions": {part.function: part.entry for part in parts},
        **({"bits": bits} if bits else {}),
    }


def convert(part: Part, path: Path) -> Any:
    """Writes the module as a package of static shapes for iOS 18, fp16 in and out, and returns coremltools' model."""
    precision = ct.precision.FLOAT16 if part.precision == FP16 else ct.precision.FLOAT32
    # torch.tensor copies: a trace needs contiguous examples.
    examples = tuple(torch.tensor(x) for x in part.inputs.values())
    pipeline = ct.PassPipeline.DEFAULT
    pipeline.remove_passes(SKIPPED_PASSES)
    with quietly(), torch.inference_mode():
        traced = torch.jit.trace(part.module.eval(), examples, check_trace=False)
        return ct.convert(
            traced,
            inputs=[ct.TensorType(name, x.shape, dtype_of(x)) for name, x in part.inputs.items()],
            outputs=[ct.TensorType(name, dtype=np.float16) for name in part.outputs],
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=precision,
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
    hashes = {}
    for path in _files(package):
        with path.open("rb") as file:
            hashes[str(path.relative_to(package))] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _describe(package: Path, metadata: Metadata) -> None:
    """Writes the metadata into a saved package; several functions would lose what their models say."""
    spec = ct.utils.load_spec(str(package))
    described = spec.description.metadata
    described.author, described.license = metadata.author, metadata.licence
    described.versionString, described.shortDescription = metadata.version, metadata.describe(package.stem)
    described.userDefined.update(metadata.custom)
    (package / MODEL).write_bytes(spec.SerializeToString())


def _files(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*") if path.is_file())


def _recipe(parts: Sequence[Part], models: dict[str, Any], weights: Weights) -> Recipe:
    """The bits of mixed weights: by the first function that has them, as a step may do without some."""
    bits: Recipe = {}
    if weights.kind != "mixed":
        return bits
    known: set[str] = set()
    for part in parts:
        names = {name for name, _ in part.module.named_parameters()}
        if not names <= known:
            bits = recipe(part.module, list(part.inputs.values()), models[part.function], weights) | bits
            known |= names
    return bits


def _save_functions(folder: Path, functions: Sequence[str], path: Path) -> None:
    """Moves FOLDER/FUNCTION.mlpackage to the path; several become one package that stores equal weights once."""
    if len(functions) == 1:
        shutil.move(folder / f"{functions[0]}.mlpackage", path)
        return
    descriptor = ct.utils.MultiFunctionDescriptor()
    for function in functions:
        descriptor.add_function(str(folder / f"{function}.mlpackage"), FIRST_FUNCTION, function)
    descriptor.default_function_name = functions[0]
    with quietly():
        ct.utils.save_multifunction(descriptor, str(path))


def check_size(parts: Sequence[Part], stored: int) -> None:
    """Raises RuntimeError for more than two bytes a number, or four: weights would be stored twice or widened."""
    weights = {(name, x.shape): x for part in parts for name, x in part.module.named_parameters()}
    # Functions have tables of their own, such as those of positions.
    tables = {x.data_ptr(): x for part in parts for x in part.module.buffers()}
    shared = {x.data_ptr(): x for x in weights.values()}
    numbers = sum(x.numel() for x in (*shared.values(), *tables.values()))
    numbers += sum(
        part.module.folded(part.inputs["ids"].shape[1]) for part in parts if isinstance(part.module, PhoneText)
    )
    expected = (2 if parts[0].precision == FP16 else 4) * numbers
    if stored > 1.02 * expected + OVERHEAD * len(parts):
        raise RuntimeError(f"{parts[0].name} takes {stored} bytes, {expected} were expected of its weights in fp16")
