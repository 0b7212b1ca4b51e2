"""The mobile transformer, 0.96 B random weights, goes through both backends on a machine of 24 GB."""

import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from configs import dit as configs
from export.agreement import LARGEST_RELATIVE_ERROR
from export.app.assets import write_verified_asset
from export.app.parts import chunk_ends
from export.app.settings import Settings
from export.coreai.asset import write_asset
from export.coreml.compress import Weights
from export.coreml.package import write_package
from export.golden import write_golden
from export.metadata import Metadata
from export.mil.verify import verify_package
from export.part import Part
from export.phone.dit import PhoneDit
from export.pytorch.dit import Dit
from mobile_video_jax.stages.registry import build_stage

pytestmark = pytest.mark.slow
GRID, CHUNK_BYTES = (7, 12, 16), 1_000_000_000


def silent(line: str) -> None:
    pass


def test_mobile_becomes_packages_and_assets_within_16_gb(tmp_path: Path):
    """About half an hour, in the form and tiles that an export takes. The last chunk is run in both executors."""
    training = build_stage(configs.get_config("mobile").to_dict()).config
    torch.manual_seed(0)
    mirror = Dit(training.model, (*GRID, 128), training.text_width).requires_grad_(False)
    tokens = int(np.prod(GRID))
    features = {
        "latents": torch.randn(1, 128, 1, tokens),
        "time_features": torch.randn(1, training.model.time_features, 1, 1),
        "text": torch.randn(1, training.text_width, 1, training.text_tokens),
        "text_mask": torch.ones(1, 1, 1, training.text_tokens),
    }
    ends, tiles = chunk_ends(mirror, CHUNK_BYTES), Settings().tiles_of(training.model, tokens)
    for i, (first, last) in enumerate(zip([0, *ends], ends, strict=False)):
        module = PhoneDit(mirror, tiles, first, last)
        with torch.inference_mode():
            outputs = module(*(features[name] for name in module.inputs))
        features |= zip(module.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True)
        inputs, expected = (
            {name: features[name].numpy() for name in names} for names in (module.inputs, module.outputs)
        )
        part = Part(f"dit_{i}", module, inputs, expected)
        write_golden(tmp_path / part.golden, part.inputs, part.outputs)
        package = write_package([part], tmp_path, Weights(), Metadata(), silent)
        assert package["bytes"] < 1.02 * CHUNK_BYTES
        if last < len(mirror.blocks):
            assert write_asset([part], tmp_path, Weights(), {}, Metadata(), silent)["bytes"] < 1.02 * CHUNK_BYTES
        else:
            record, _ = write_verified_asset([part], tmp_path, Weights(), {}, Metadata(), silent)
            assert record["executed"] == "float32" and record["relative_error"] < 1e-4
            verification = verify_package(tmp_path / package["file"], tmp_path / part.golden)
            assert verification.summary()["relative_error"] < LARGEST_RELATIVE_ERROR
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 16e6  # kB
