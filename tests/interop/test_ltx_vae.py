"""LTX-Video's VAE here and in diffusers: the same function of the same tensors."""

import json
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLLTXVideo

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.interop.ltx_vae import (
    DOWN,
    DOWN_095,
    STATISTICS,
    latent_stats,
    published_stats,
    settings,
    sources,
    vae_config,
)
from mobile_video_jax.interop.mapping import check_names, published, read_params
from mobile_video_jax.nn.module import init
from mobile_video_jax.vae.ltx.config import LtxVaeConfig
from mobile_video_jax.vae.ltx.layers import fixed_noise
from mobile_video_jax.vae.ltx.model import LtxVae
from tests.nets import normal, run

PLAIN = {
    "latent_channels": 6,
    "block_out_channels": [8, 12],
    "down_block_types": [DOWN, DOWN],
    "layers_per_block": [1, 0, 1],
    "spatio_temporal_scaling": [True, False],
    "downsample_type": ["conv", "conv"],
    "decoder_block_out_channels": [8, 12],
    "decoder_layers_per_block": [1, 0, 1],
    "decoder_spatio_temporal_scaling": [True, False],
    "decoder_inject_noise": [False, False, False],
    "upsample_residual": [False, False],
    "upsample_factor": [1, 1],
    "spatial_compression_ratio": 8,
    "temporal_compression_ratio": 2,
}
TOLD = PLAIN | {
    "decoder_block_out_channels": [16],
    "decoder_layers_per_block": [1, 1],
    "decoder_spatio_temporal_scaling": [True],
    "decoder_inject_noise": [True, False],
    "upsample_residual": [True],
    "upsample_factor": [2],
    "timestep_conditioning": True,
}
SHUFFLED = PLAIN | {
    "block_out_channels": [8, 8, 16, 32],
    "down_block_types": [DOWN_095] * 3,
    "layers_per_block": [0, 1, 0, 0],
    "spatio_temporal_scaling": [True] * 3,
    "downsample_type": ["spatial", "temporal", "spatiotemporal"],
    "decoder_block_out_channels": [8, 16],
    "decoder_layers_per_block": [0, 0, 0],
    "decoder_spatio_temporal_scaling": [True, True],
    "upsample_residual": [True, False],
    "upsample_factor": [2, 2],
    "spatial_compression_ratio": 16,
    "temporal_compression_ratio": 4,
}
VARIANTS = {"plain": PLAIN, "told": TOLD, "shuffled": SHUFFLED, "causal": PLAIN | {"decoder_causal": True}}
# What the published configs change of the defaults, and the millions of parameters.
LATER_DECODER = {
    "decoder_block_out_channels": [256, 512, 1024],
    "decoder_spatio_temporal_scaling": [True] * 3,
    "upsample_residual": [True] * 3,
    "upsample_factor": [2] * 3,
    "timestep_conditioning": True,
}
RELEASES: dict[str, tuple[dict, int]] = {
    "0.9": ({}, 419),
    "0.9.1": (
        LATER_DECODER | {"decoder_layers_per_block": [5, 6, 7, 8], "decoder_inject_noise": [True, True, True, False]},
        935,
    ),
    "0.9.5": (
        LATER_DECODER
        | {
            "decoder_layers_per_block": [5] * 4,
            "decoder_inject_noise": [False] * 4,
            "block_out_channels": [128, 256, 512, 1024, 2048],
            "down_block_types": [DOWN_095] * 4,
            "layers_per_block": [4, 6, 6, 2, 2],
            "spatio_temporal_scaling": [True] * 4,
            "downsample_type": ["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
            "spatial_compression_ratio": 32,
            "temporal_compression_ratio": 8,
        },
        1247,
    ),
}
# The places where `told` draws noise, in the order in which its decoder runs.
NOISY = [f"decoder/up_0_block_0/noise{i}" for i in (1, 2)]


class Pair(NamedTuple):
    peer: Any
    config: LtxVaeConfig
    params: Any
    tensors: dict[str, np.ndarray]


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request) -> Pair:
    """diffusers' network with noise in every tensor, those that start as zeros or ones included, and ours of it."""
    torch.manual_seed(0)
    peer = AutoencoderKLLTXVideo(**VARIANTS[request.param]).eval()
    with torch.no_grad():
        for tensor in peer.state_dict().values():
            tensor += 0.1 * torch.randn(tensor.shape)
    tensors = {name: tensor.numpy() for name, tensor in peer.state_dict().items()}
    config = vae_config(json.loads(peer.to_json_string()))
    network = {name: tensor for name, tensor in tensors.items() if name not in STATISTICS}
    return Pair(peer, config, read_params(network, sources(config), shapes(config), "vae"), tensors)


def shapes(config: LtxVaeConfig) -> Any:
    side = config.strides.space
    video = jax.ShapeDtypeStruct((1, 1, side, side, 3), jnp.float32)
    return nn.unbox(jax.eval_shape(lambda video: init(LtxVae(config), jax.random.key(0), video), video))


def relative(actual: jax.Array, expected: torch.Tensor) -> float:
    expected = expected.permute(0, 2, 3, 4, 1).numpy()
    assert actual.shape == expected.shape
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def to_torch(x: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(x)).permute(0, 4, 1, 2, 3)


def test_encoding(pair):
    video = normal(0, 1, 9, 32, 48, 3)
    encoded = run(LtxVae(pair.config), pair.params, video, method="encode")
    with torch.no_grad():
        expected = pair.peer.encode(to_torch(video)).latent_dist
    assert relative(encoded.mean, expected.mean) < 1e-4
    assert relative(encoded.log_variance, expected.logvar) < 1e-4


def test_decoding(pair, monkeypatch):
    """diffusers draws the same noise here, and its pipeline's mixing of latents and noise is done by hand."""
    latents, config = normal(1, 1, 3, 2, 3, 6), pair.config
    decoded = run(LtxVae(config), pair.params, latents, method="decode")
    time, names = None, iter(NOISY)
    if config.timestep_conditioning:
        noise, scale = fixed_noise("latents", 3, 2, 3, 6), config.decode_noise_scale
        latents, time = (1 - scale) * latents + scale * noise, torch.tensor([config.decode_timestep])
    monkeypatch.setattr(torch, "randn", lambda shape, **_: torch.tensor(np.array(fixed_noise(next(names), *shape))))
    with torch.no_grad():
        expected = pair.peer.decode(to_torch(latents), time).sample
    assert relative(decoded, expected) < 1e-4
    assert not any(config.noise) or next(names, None) is None


def test_import_and_export_is_the_identity(pair):
    back = published(pair.params, sources(pair.config)) | published_stats(latent_stats(pair.tensors, {}))
    assert back.keys() == pair.tensors.keys()
    for name, tensor in pair.tensors.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name, strict=True)
    written = json.loads(pair.peer.to_json_string())
    del written["_diffusers_version"]
    assert settings(pair.config) == written


def test_statistics_carry_the_scaling_factor():
    tensors = {"latents_mean": np.float32([1.0, 2.0]), "latents_std": np.float32([4.0, 8.0])}
    stats = latent_stats(tensors, {"scaling_factor": 0.5})
    assert stats.mean == (1.0, 2.0) and stats.std == (8.0, 16.0)
    with pytest.raises(UserError, match="latents_std is missing"):
        latent_stats({"latents_mean": tensors["latents_mean"]}, {})


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (PLAIN, {"use_quant_conv": True}, "use_quant_conv=True is not supported: diffusers 0.42 has no such setting"),
        (PLAIN, {"_class_name": "AutoencoderKL"}, "_class_name='AutoencoderKL' is not supported: only"),
        (PLAIN, {"patch_size_t": 2}, "patch_size_t=2 is not supported: only 1 is"),
        (PLAIN, {"encoder_causal": False}, "encoder_causal=False is not supported: only True is"),
        (PLAIN, {"upsample_factor": [1]}, r"upsample_factor=\[1\] is not supported: decoder_block_out_channels"),
        (PLAIN, {"block_out_channels": [8]}, r"block_out_channels=\(8,\) is not supported: 2 blocks take 2 widths"),
        (PLAIN, {"down_block_types": [DOWN, "DownBlock"]}, "down_block_types=.* is not supported: all are"),
        (PLAIN, {"decoder_inject_noise": [True] * 3}, "decoder_block_out_channels=.* a level that changes its width"),
        (PLAIN, {"spatial_compression_ratio": 32}, "spatial_compression_ratio=32 is not supported: .* make it 8"),
        (PLAIN, {"decoder_spatio_temporal_scaling": [True, True]}, "it does not undo the encoder's strides, t2_s8_c6"),
        (SHUFFLED, {"downsample_type": ["spatial", "temporal", "pool"]}, "downsample_type='pool' is not supported"),
        (SHUFFLED, {"downsample_type": ["spatial", "conv", "temporal"]}, "of type conv keeps its width"),
    ],
)
def test_settings_without_a_place_are_named(base, changes, message):
    with pytest.raises(UserError, match=message):
        vae_config(base | changes)


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_every_tensor_of_the_releases_has_one_parameter(release):
    changes, millions = RELEASES[release]
    with torch.device("meta"):
        peer = AutoencoderKLLTXVideo(**changes)
    config = vae_config(json.loads(peer.to_json_string()))
    tensors = {name: x for name, x in peer.state_dict().items() if name not in STATISTICS}
    check_names(tensors, sources(config), "vae")
    params = count_parameters(shapes(config))
    assert str(config.strides) == "t8_s32_c128"
    assert params == sum(x.numel() for x in tensors.values()) and round(params / 1e6) == millions
