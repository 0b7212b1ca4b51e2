"""Core AI's side of a folder: its assets, their verification in Apple's runtime, and the app that calls them."""

import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from export.app.runtime import App, Tensors
from export.app.verify import Figures, worst
from export.coreml.compress import Weights
from export.estimate.ops import ops_of_module
from export.metadata import Metadata
from export.part import FIRST_FUNCTION, Part
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import say

NEEDED = ("coreai", "coreai_torch")
HOW = "pip install -e '.[export]' on Linux for x86-64 or on macOS 26"
# Apple's runtime for Linux runs fp16 slowly, about 0.3 GFLOP a second: more than this would take a minute.
LARGEST_FP16_FLOPS = 10e9


def installed() -> bool:
    """True where Core AI's packages are."""
    return all(importlib.util.find_spec(name) is not None for name in NEEDED)


def write_verified_asset(
    parts: Sequence[Part],
    folder: Path,
    weights: Weights,
    recipe: Mapping[str, int],
    metadata: Metadata,
    progress: Callable[[str], None],
) -> tuple[dict[str, Any], Figures]:
    """Writes an asset, runs its entry points, and returns its entry in manifest.json and its figures.

    `executed` tells what ran: the asset itself, or where that would take minutes the same network in float32.
    """
    from export.coreai.asset import convert, write_asset
    from export.coreai.verify import verify_asset

    record = write_asset(parts, folder, weights, recipe, metadata, progress)
    small = record["weights"] == "fp32" or max(map(flops, parts)) <= LARGEST_FP16_FLOPS
    record["executed"] = "float16" if small and record["weights"] != "fp32" else "float32"
    with tempfile.TemporaryDirectory() as temporary:
        path = folder / record["file"]
        if not small:
            path = Path(temporary) / record["file"]
            convert(parts, path, nn.Module.eval, torch.float32, metadata)
        progress(f"{record['name']}: running in Core AI, {record['executed']}")
        functions = {}
        for part in parts:
            summary = verify_asset(path, folder / part.golden, part.entry_point).summary()
            functions[part.entry_point] = {key: summary[key] for key in ("relative_error", "psnr", "outputs")}
            functions[part.entry_point]["first_warnings"] = []
    figures = {
        **{key: record[key] for key in ("name", "weights", "bytes", "executed")},
        "relative_error": worst(max, (each["relative_error"] for each in functions.values())),
        "psnr": worst(min, (each["psnr"] for each in functions.values())),
        "functions": functions,
    }
    return record | {key: figures[key] for key in ("relative_error", "psnr")}, figures


def flops(part: Part) -> int:
    """FLOPs of the products of one call."""
    inputs = [torch.tensor(x) for x in part.inputs.values()]
    return sum(op.flops for op in ops_of_module(part.module, *inputs))


class AssetApp(App):
    """The app with Core AI in Core ML's place. `close` it."""

    def __init__(self, folder: Path, function: str):
        super().__init__(folder, function)
        self.entry_points = {
            (entry["part"], entry["function"]): (record["file"], name)
            for record in self.manifest["assets"]
            for name, entry in record["functions"].items()
        }
        self.records = {part: {} for part, _ in self.entry_points}

    def close(self) -> None:
        """Releases the assets."""
        for asset in self.loaded.values():
            asset.__exit__(None, None, None)

    def _call(self, name: str, tensors: Mapping[str, Any], function: str = "") -> Tensors:
        from export.coreai.runtime import Asset

        key = name, function or self.clip["function"]
        file, entry_point = self.entry_points[key if key in self.entry_points else (name, FIRST_FUNCTION)]
        if file not in self.loaded:
            self.loaded[file] = Asset(self.folder / file)
        outputs = self.loaded[file].function(entry_point)(tensors)
        return {feature: x.astype("float32") for feature, x in outputs.items()}


def installed_backends(names: list[str], *, core_ai: bool) -> tuple[str, ...]:
    """The backends named, or all that are installed. Raises UserError for Core AI where its packages are missing."""
    if "coreai" in names and not core_ai:
        raise UserError(f"--backend=coreai takes packages that are not installed: {HOW}")
    if not names and not core_ai:
        say(f"Core AI's packages are not installed, Core ML alone is written: {HOW}")
    return tuple(names) or (("coreml", "coreai") if core_ai else ("coreml",))
