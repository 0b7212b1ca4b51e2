"""Saved Core AI assets of PyTorch modules: static shapes, fp16, entry points that share weights."""

import contextlib
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
from export.part import Part


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
    convert(parts, path, lambda module: compressed(module, weights.kind, recipe), torch.float16, metadata)
    progress(f"{name}: {size(path) / 1e6:.1f} MB")
    return {
        "name": name,
        "file": path.name,
        "weights": weights.kind,
        "bytes": size(path),
        "sha256": digests(path),
        "functions": {part.entry_point: {**part.entry, "part": part.name, "function": part.function} for part in parts},
    }


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
