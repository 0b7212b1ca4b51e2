"""One list of parts, written by two backends."""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from export.app.assets import write_verified_asset
from export.app.settings import Settings
from export.app.verify import Figures
from export.coreml.package import write_package
from export.golden import write_golden
from export.metadata import Metadata
from export.part import Part

Written = tuple[list[dict[str, Any]], list[dict[str, Any]], list[Figures]]


def write_parts(
    groups: Iterable[list[Part]], folder: Path, settings: Settings, metadata: Metadata, progress: Callable[[str], None]
) -> Written:
    """Writes golden arrays, packages and assets: both's entries in manifest.json, and the figures of the assets.

    A group is the functions of a package. One follows the other, so that few networks are in memory at a time.
    """
    packages: list[dict[str, Any]] = []
    assets: list[tuple[dict[str, Any], Figures]] = []
    for _, of_asset in itertools.groupby(groups, key=lambda group: group[0].asset):
        parts: list[Part] = []
        bits: dict[str, int] = {}
        for group in of_asset:
            for part in group:
                write_golden(folder / part.golden, part.inputs, part.outputs)
            if "coreml" in settings.backends:
                packages.append(write_package(group, folder, settings.weights, metadata, progress))
                bits = packages[-1].get("bits", {}) | bits  # entry points share weights, so their bits too
            parts += group
        if "coreai" in settings.backends:
            assets.append(write_verified_asset(parts, folder, settings.weights, bits, metadata, progress))
    return packages, [record for record, _ in assets], [figures for _, figures in assets]
