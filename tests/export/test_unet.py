"""The U-Net's PyTorch mirror, its packages, and its estimate."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from export.app import golden, parts
from export.app.folder import export_run
from export.app.settings import Settings
from export.coreml.package import convert
from export.golden import write_golden
from export.mil.verify import verify_package
from export.phone.unet import PhoneUnet
from export.pytorch.load import load_params
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.unet.config import UnetConfig
from mobile_video_jax.unet.model import Unet
from tests import tiny
from tests.nets import params_like
from tests.unet.test_model import INPUTS
from tests.unet.test_temporal import GROWN

FULL = dataclasses.replace(
    GROWN, multi_query=False, separable=False, expansion=1, self_attention_levels=2, blocks=(1, 1)
)


@pytest.mark.parametrize("config", [GROWN, pytest.param(FULL, marks=pytest.mark.slow)], ids=["separable", "full"])
def test_the_mirror_equals_the_unet(config: UnetConfig):
    inputs = [x[:1] for x in INPUTS]
    params = params_like(Unet(config), *inputs, scale=0.3)
    tensors = golden.unet_tensors(config, params, *inputs)
    mirror = PhoneUnet(config, (3, 4, 4, 6), 24)
    load_params(mirror, params)
    with torch.inference_mode():
        velocity = mirror(*(torch.tensor(tensors[name]) for name in mirror.inputs)).numpy()
    error = np.abs(velocity - tensors["velocity"]).max() / np.abs(tensors["velocity"]).max()
    assert error < 1e-5


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    config = tiny.dit_config(Path("nowhere"), model=GROWN)
    return tiny.dit_run(tmp_path_factory.mktemp("runs") / "unet", config)


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["9x32x32", "1x32x32"])
def test_its_package_agrees_with_jax(clip, run, tmp_path):
    generator = Generator.load(run, clip=clip)
    [part] = parts.unet_parts(generator, Settings(steps=2), tmp_path)
    path = tmp_path / "dit.mlpackage"
    convert(part, path)
    write_golden(tmp_path / "dit.npz", part.inputs, part.outputs)
    assert verify_package(path, tmp_path / "dit.npz").outputs["velocity"].psnr > 50


def test_options_of_a_transformer_are_refused(run, tmp_path):
    with pytest.raises(UserError, match="--tiles, --cut_inputs and --form are for a transformer"):
        export_run(run, tmp_path / "out", Settings(tiles=(4,)), print)
    assert not (tmp_path / "out").exists()
