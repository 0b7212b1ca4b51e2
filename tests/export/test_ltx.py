"""LTX-Video's decoder in PyTorch and for phones, and an imported pipeline's packages."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from export.app import folder, golden
from export.app.settings import Settings
from export.mil.load import load_package
from export.phone.ltx_vae import PhoneDecoder
from export.pytorch.load import load_params
from export.pytorch.ltx_vae import Decoder
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.interop.import_weights import import_weights, open_diffusers
from mobile_video_jax.interop.ltx_vae import DOWN
from mobile_video_jax.vae.ltx.config import LtxVaeConfig
from mobile_video_jax.vae.ltx.model import LtxVae
from tests.interop.pipeline import make_pipeline
from tests.nets import normal, params_like

# As release 0.9, and as those from 0.9.1 on, whose decoder is told a timestep and adds noise.
PLAIN = LtxVaeConfig(
    **{"channels": 4, "encoder_widths": (6, 6), "encoder_depths": (0, 0), "encoder_steps": ("conv",)},
    **{"decoder_widths": (6, 8), "decoder_depths": (1, 0, 1), "up": (True, False), "up_factor": (1, 1)},
    **{"up_residual": (False, False), "noise": (False, False, False)},
)
TOLD = dataclasses.replace(
    PLAIN,
    **{"decoder_widths": (16,), "decoder_depths": (1, 1), "up": (True,), "up_factor": (2,), "up_residual": (True,)},
    **{"noise": (True, False), "timestep_conditioning": True},
)
CAUSAL = dataclasses.replace(PLAIN, decoder_causal=True)
PROMPT = "a red ball moving"
# A VAE of one step, told a timestep.
SMALL = {
    **{"block_out_channels": (8,), "down_block_types": (DOWN,), "downsample_type": ("conv",)},
    **{"layers_per_block": (1, 0), "spatio_temporal_scaling": (True,), "timestep_conditioning": True},
    **{"decoder_block_out_channels": (16,), "decoder_layers_per_block": (1, 0), "upsample_residual": (True,)},
    **{"decoder_spatio_temporal_scaling": (True,), "upsample_factor": (2,), "decoder_inject_noise": (True, False)},
    **{"spatial_compression_ratio": 8, "temporal_compression_ratio": 2},
}


@pytest.mark.parametrize("config", [PLAIN, TOLD, CAUSAL], ids=["plain", "told", "causal"])
def test_the_mirror_and_the_phones_form_equal_the_decoder(config: LtxVaeConfig):
    params = params_like(LtxVae(config), normal(0, 1, 1, 8, 8, 3))["decoder"]
    if config.timestep_conditioning:
        params["timestep_scale_multiplier"] = jnp.asarray(1000.5)
    latents = normal(1, 1, 3, 2, 3, 4)
    tensors = next(golden.decoder_tensors(LtxVae(config), {"decoder": params}, latents))
    mirror = loaded(config, params)
    assert tensors["video"].shape == (5, 3, 16, 24)
    close(mirror(torch.tensor(np.asarray(latents)))[0].movedim(-1, 1), tensors["video"])
    phone = PhoneDecoder(mirror, (3, 2, 3))
    assert not any(isinstance(module, torch.nn.Conv3d) for module in phone.modules())
    close(phone(torch.tensor(tensors["latents"])), tensors["video"])
    with pytest.raises(UserError, match=r"tensor decoder.conv_out.bias of shape \(48,\) is missing"):
        loaded(config, {**params, "conv_out": {"kernel": params["conv_out"]["kernel"]}})


def loaded(config: LtxVaeConfig, params: dict[str, Any]) -> Decoder:
    mirror = Decoder(config)
    load_params(torch.nn.ModuleDict({"decoder": mirror}), {"decoder": params})
    return mirror


def close(actual: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual.detach(), expected, atol=1e-5 * np.abs(expected).max())


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """The folder and report of a pipeline made by diffusers, imported and exported."""
    root = tmp_path_factory.mktemp("ltx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        make_pipeline(root / "pipeline", **SMALL)
        patch.setattr(folder, "ffn_memory", lambda *args: [])  # packages of its own, of no interest here
        import_weights(open_diffusers(root / "pipeline"), root / "run", clip="5x16x16", frame_rate=8.0, scan=False)
        settings = Settings(text_encoder=f"ltx:{root / 'pipeline'}", tiles=(2,), steps=2, prompt=PROMPT)
        return root / "out", folder.export_run(root / "run", root / "out", settings, lambda line: None)


@pytest.mark.slow
def test_an_imported_pipelines_packages_and_clip_are_jaxs(exported):
    out, report = exported
    assert report["passed"], report["failures"]
    assert [package["name"] for package in report["packages"]] == ["text", "dit", "vae"]
    assert report["clips"][0]["psnr"] > 35
    with np.load(out / "drawn" / "5x16x16.npz") as arrays:
        assert arrays["packages"].shape == (5, 16, 16, 3) and arrays["packages"].std() > 10


@pytest.mark.slow
def test_the_manifest_tells_the_calls(exported):
    manifest = json.loads((exported[0] / "manifest.json").read_text())
    text, _, vae = (package["functions"]["main"] for package in manifest["packages"])
    assert {name: x["shape"] for name, x in text["inputs"].items()} == {"ids": [1, 128], "text_mask": [1, 1, 1, 128]}
    assert {name: x["shape"] for name, x in vae["inputs"].items()} == {"latents": [3, 6, 2, 2]}
    assert {name: x["shape"] for name, x in vae["outputs"].items()} == {"video": [5, 3, 16, 16]}
    assert manifest["verification"]["passed"]


@pytest.mark.slow
def test_the_decoders_package_has_no_convolution_over_time(exported):
    program = load_package(exported[0] / "vae.mlpackage").function()
    kernels = [op.inputs["weight"].shape for op in program.operations if op.op_type == "conv"]
    assert len(kernels) > 5 and all(len(shape) == 4 for shape in kernels)
    assert max(len(var.shape) for op in program.operations for var in op.outputs) <= 5
