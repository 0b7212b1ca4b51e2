"""Memory of an FFN's hidden activation, for several numbers of tiles."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from export.coreml.package import convert
from export.estimate.tiles import TILES
from export.mil.liveness import PRODUCTS, arguments, bytes_of, live_bytes, peak_live_bytes
from export.mil.load import load_package
from export.part import Part
from export.phone.layout import Layout
from export.phone.tiled_ffn import TiledFfn


def ffn_memory(width: int, hidden: int, tokens: int, layout: Layout, cut_inputs: bool = False) -> list[dict[str, int]]:
    """Products and peak bytes of live activations of an FFN with random weights, for each of TILES.

    `hidden_bytes` counts the values between both products alone, `tile_bytes` is the largest of them.
    """
    torch.manual_seed(0)
    up, down = nn.Linear(width, hidden), nn.Linear(hidden, width)
    x = layout.turn(torch.randn(1, width, 1, tokens))
    rows = []
    for tiles in (tiles for tiles in TILES if tiles <= min(width, hidden)):
        ffn = TiledFfn(up, down, tiles, layout, cut_inputs=cut_inputs).requires_grad_(False)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ffn.mlpackage"
            convert(Part("ffn", ffn, {"x": x.numpy()}, {"y": ffn(x).numpy()}), path)
            function = load_package(path).function()
        inside = hidden_values(function)
        rows.append(
            {
                "tiles": tiles,
                "products": sum(op.op_type in PRODUCTS for op in function.operations),
                "peak_live_bytes": peak_live_bytes(function),
                "hidden_bytes": max(live_bytes(function, inside.__contains__)),
                "tile_bytes": max(map(bytes_of, inside)),
            }
        )
    return rows


def hidden_values(function: Any) -> set[Any]:
    """The inputs and outputs of GELUs, and the partial sums of the inputs."""
    values = [var for op in function.operations if op.op_type == "gelu" for var in (op.outputs[0], op.inputs["x"])]
    hidden = set(values)
    while values:
        op = values.pop().op
        if op.op_type == "add":
            parts = [var for var in arguments(op) if var.op is not None and var.op.op_type != "const"]
            values += parts
            hidden |= set(parts)
    return hidden
