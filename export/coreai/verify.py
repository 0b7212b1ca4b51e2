"""Runs a saved asset on reference inputs in Apple's runtime, and compares its outputs with the reference's."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.agreement import Agreement, agreements, figures, passes
from export.coreai.runtime import Asset
from export.golden import read_golden


@dataclass(frozen=True)
class AssetVerification:
    """An asset's outputs beside the reference's. A `compressed` asset is held to the PSNR alone."""

    path: Path
    function: str
    bytes: int
    outputs: dict[str, Agreement]
    compressed: bool

    def summary(self) -> dict[str, Any]:
        """The JSON of export.verify; a figure that is not finite is null. The runtime tells no ranges of values."""
        return {
            "package": str(self.path),
            "function": self.function,
            "bytes": self.bytes,
            "compressed": self.compressed,
            "passed": passes(self.outputs, self.compressed),
            **figures(self.outputs),
            "largest": None,
            "warnings": [],
        }


def verify_asset(path: Path, inputs: Path, function: str | None = None) -> AssetVerification:
    """Runs an entry point of a saved asset on the inputs of an .npz file, and compares with its outputs.

    Raises UserError for an asset or a file that cannot be read, or that do not belong together.
    """
    with Asset(path) as asset:
        entry = asset.function(function)
        golden = read_golden(inputs, entry.inputs, entry.outputs)
        outputs = agreements(golden.outputs, entry(golden.inputs))
        return AssetVerification(path, entry.name, asset.bytes, outputs, is_compressed(path))


def is_compressed(path: Path) -> bool:
    """True where the asset's metadata names another kind of weights than fp16 and fp32."""
    metadata = json.loads((path / "metadata.json").read_text())
    return bool(metadata.get("creatorDefinedMetadata", {}).get("weights", "fp16") not in ("fp16", "fp32"))
