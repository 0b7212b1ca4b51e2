"""Core AI's assets hold compressed weights, which Apple's runtime reads as they were meant."""

from pathlib import Path

import numpy as np
import pytest
import torch

from export.coreai.asset import write_asset
from export.coreai.compress import compressed
from export.coreai.verify import verify_asset
from export.coreml.compress import Weights
from export.golden import write_golden
from export.metadata import Metadata
from export.part import Part

WEIGHT = "0.weight"


@pytest.fixture(scope="module")
def part() -> Part:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(64, 96, 1), torch.nn.GELU()).requires_grad_(False)
    module[0].weight[5] = 0  # a channel that pruning emptied
    x = torch.randn(1, 64, 1, 5)
    return Part("layer", module, {"x": x.numpy()}, {"y": module(x).numpy()})


@pytest.mark.parametrize("kind", ["int8", "palette4", "palette8"])
def test_a_channel_of_zeros_stays_zero(kind: str, part: Part):
    weight = compressed(part.module, kind, {})[0].weight
    assert (weight[5] == 0).all()
    assert 0 < (weight - part.module[0].weight).abs().max() < 0.03


def test_compressed_assets_are_smaller_and_within_what_they_lose(part: Part, tmp_path: Path):
    write_golden(tmp_path / part.golden, part.inputs, part.outputs)
    sizes, errors = [], []
    recipe = {"0_weight_to_fp16": 4}
    for weights in (Weights(), Weights("int8"), Weights("palette6"), Weights("mixed", target_bits=4.0)):
        metadata = Metadata(weights=weights.kind)
        record = write_asset([part], tmp_path, weights, recipe, metadata, lambda line: None)
        check = verify_asset(tmp_path / record["file"], tmp_path / part.golden)
        assert check.compressed == (weights.kind != "fp16")
        sizes.append(record["bytes"])
        errors.append(check.summary()["relative_error"])
    assert sizes == sorted(sizes, reverse=True) and sizes[3] < 0.6 * sizes[0]
    assert errors[0] < 2e-3 < errors[1] < errors[2] < errors[3] < 0.2
    module = compressed(part.module, "mixed", recipe)
    expected = module(torch.tensor(part.inputs["x"]).half()).numpy()
    assert np.linalg.norm(expected - part.outputs["y"]) / np.linalg.norm(part.outputs["y"]) == pytest.approx(
        errors[3], rel=0.02
    )
