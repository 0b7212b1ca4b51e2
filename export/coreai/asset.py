"""Saved Core AI assets of PyTorch modules: static shapes, fp16, entry points that share weights."""

import contextlib
import dataclasses
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from coreai.runtime import AIModelAssetMetadata
from coreai_torch import TorchConverter, get_decomp_table
from torch import Tensor, nn

from export.coreai.compress import compressed
from export.coreml.compress import Weights
from export.coreml.package import digests, size
from export.metadata import Metadata
from export.part import FP32, Part

SMALL_ENCODER = 100_000_000  # parameters: in fp32 it takes 200 MB more than in fp16, at most


def write_asset(
    parts: Sequence[Part],
    out: Path,
    weights: Weights,
    recipe: Mapping[str, int],
    metadata: Metadata,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Writes OUT/NAME.aimodel with an entry point for each part, and returns its entry in manifest.json.

    Equal weights are stored once. `recipe` holds the bits of mixed weights, by the names of Core ML's constants.
    """
    name = parts[0].asset
    path = out / f"{name}.aimodel"
    progress(f"{name}: converting for Core AI")
    kind = stored_as(parts[0], weights)
    metadata = dataclasses.replace(metadata, weights=kind)
    if kind == "fp32":
        convert(parts, path, nn.Module.eval, torch.float32, metadata)
    else:
        convert(parts, path, lambda module: compressed(module, kind, recipe), torch.float16, metadata)
    progress(f"{name}: {size(path) / 1e6:.1f} MB")
    return {
        "name": name,
        "file": path.name,
        "weights": kind,
        "bytes": size(path),
        "sha256": digests(path),
        "functions": {
            part.entry_point: {**_entry(part, kind), "part": part.name, "function": part.function} for part in parts
        },
    }


def stored_as(part: Part, weights: Weights) -> str:
    """The kind of a part's weights: those given, but fp32 for a part in fp32, and for a small text encoder, not fp16.

    Core AI's fp16 costs MiniLM, whose values have outliers, a relative error of 7.3e-3 on this machine.
    """
    if part.precision == FP32:
        return FP32
    small = sum(x.numel() for x in part.module.parameters()) < SMALL_ENCODER
    return "fp32" if part.name == "text" and weights.kind == "fp16" and small else weights.kind


def _entry(part: Part, kind: str) -> dict[str, Any]:
    """The part's entry in manifest.json, in the types that the asset takes and gives."""
    if kind != "fp32":
        return part.entry
    features = {
        group: {
            name: {**feature, "dtype": "float32" if feature["dtype"] == "float16" else feature["dtype"]}
            for name, feature in part.entry[group].items()
        }
        for group in ("inputs", "outputs")
    }
    return {**part.entry, **features}


def convert(
    parts: Sequence[Part], path: Path, stored: Callable[[nn.Module], nn.Module], dtype: torch.dtype, metadata: Metadata
) -> None:
    """Writes an asset whose entry points compute `stored`, in `dtype`, of each part's module."""
    converter = TorchConverter(mode=TorchConverter.Mode.RELEASE)
    with _quietly(), torch.no_grad():
        for part in parts:
            module = stored(part.module)
            examples = tuple(_example(torch.tensor(x), dtype) for x in part.inputs.values())
            program = torch.export.export(module, examples).run_decompositions(get_decomp_table())
            converter.add_exported_program(
                program,
                input_names=list(part.inputs),
                output_names=list(part.outputs),
                entrypoint_name=part.entry_point,
            )
        converter.to_coreai().save_asset(path, _described(metadata, path.stem))


def _described(metadata: Metadata, name: str) -> AIModelAssetMetadata:
    described = AIModelAssetMetadata()
    described.author, described.license = metadata.author, metadata.licence
    described.model_description = metadata.describe(name)
    for key, value in {**metadata.custom, "version": metadata.version}.items():
        described.set_custom(key, value)
    return described


def _example(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype) if x.is_floating_point() else x


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hides the converter's progress, and what torch warns of its own use of itself."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
