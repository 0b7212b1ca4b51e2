"""LTX-Video's original releases: all tensors in one safetensors file, under other names than diffusers'."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.interop.diffusers_folder import Component
from mobile_video_jax.interop.ltx_sampler import Sampler, parse_header
from mobile_video_jax.weights.huggingface import open_tensors, read_header

TRANSFORMER, VAE = "model.diffusion_model.", "vae."
RENAMED = {"patchify_proj": "proj_in", "adaln_single": "time_embed", "q_norm": "norm_q", "k_norm": "norm_k"}
VAE_RENAMED = {
    "res_blocks": "resnets",
    "conv_shortcut": "conv_shortcut.conv",
    "norm3.norm": "norm3",
    "last_time_embedder": "time_embedder",
    "last_scale_shift_table": "scale_shift_table",
}
STATISTICS = {"mean-of-means": "latents_mean", "std-of-means": "latents_std"}  # the network needs no others

# Settings of the releases' networks, from diffusers' scripts/convert_ltx_to_diffusers.py.
_TRANSFORMER: dict[str, Any] = {
    "in_channels": 128,
    "out_channels": 128,
    "patch_size": 1,
    "patch_size_t": 1,
    "caption_channels": 4096,
    "activation_fn": "gelu-approximate",
    "qk_norm": "rms_norm_across_heads",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "attention_bias": True,
    "attention_out_bias": True,
    "num_attention_heads": 32,
}
_VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 128,
    "patch_size": 4,
    "patch_size_t": 1,
    "resnet_norm_eps": 1e-6,
    "scaling_factor": 1.0,
    "encoder_causal": True,
    "decoder_causal": False,
}
_ENCODER_090: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["LTXVideoDownBlock3D"] * 4,
    "layers_per_block": [4, 3, 3, 3, 4],
    "spatio_temporal_scaling": [True, True, True, False],
    "downsample_type": ["conv"] * 4,
}
_DECODER_091: dict[str, Any] = {
    "decoder_block_out_channels": [256, 512, 1024],
    "decoder_spatio_temporal_scaling": [True] * 3,
    "upsample_residual": [True] * 3,
    "upsample_factor": [2] * 3,
    "timestep_conditioning": True,
}
VAES: dict[str, dict[str, Any]] = {
    "0.9.0": {
        **_VAE,
        **_ENCODER_090,
        "decoder_block_out_channels": [128, 256, 512, 512],
        "decoder_layers_per_block": [4, 3, 3, 3, 4],
        "decoder_spatio_temporal_scaling": [True, True, True, False],
        "decoder_inject_noise": [False] * 5,
        "upsample_residual": [False] * 4,
        "upsample_factor": [1] * 4,
        "timestep_conditioning": False,
    },
    "0.9.1": {
        **_VAE,
        **_ENCODER_090,
        **_DECODER_091,
        "decoder_layers_per_block": [5, 6, 7, 8],
        "decoder_inject_noise": [True, True, True, False],
    },
    "0.9.5": {
        **_VAE,
        **_DECODER_091,
        "block_out_channels": [128, 256, 512, 1024, 2048],
        "down_block_types": ["LTXVideo095DownBlock3D"] * 4,
        "layers_per_block": [4, 6, 6, 2, 2],
        "spatio_temporal_scaling": [True] * 4,
        "downsample_type": ["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
        "decoder_layers_per_block": [5, 5, 5, 5],
        "decoder_inject_noise": [False] * 4,
    },
}
# A release numbers the blocks of encoder and decoder consecutively; diffusers nests them.
_UP = ["mid_block", *(f"up_blocks.{i}{layer}" for i in range(4) for layer in (".upsamplers.0", ""))]
_UP_090 = [
    "mid_block",
    "up_blocks.0",
    "up_blocks.1.upsamplers.0",
    "up_blocks.1",
    "up_blocks.2.conv_in",
    "up_blocks.2.upsamplers.0",
    "up_blocks.2",
    "up_blocks.3.conv_in",
    "up_blocks.3.upsamplers.0",
    "up_blocks.3",
]
_DOWN = [*(f"down_blocks.{i}{layer}" for i in range(4) for layer in ("", ".downsamplers.0")), "mid_block"]
_DOWN_090 = [
    "down_blocks.0",
    "down_blocks.0.downsamplers.0",
    "down_blocks.0.conv_out",
    "down_blocks.1",
    "down_blocks.1.downsamplers.0",
    "down_blocks.1.conv_out",
    "down_blocks.2",
    "down_blocks.2.downsamplers.0",
    "down_blocks.3",
    "mid_block",
]
BLOCKS = {
    "0.9.0": {"encoder.down_blocks": _DOWN_090, "decoder.up_blocks": _UP_090},
    "0.9.1": {"encoder.down_blocks": _DOWN_090, "decoder.up_blocks": _UP},
    "0.9.5": {"encoder.down_blocks": _DOWN, "decoder.up_blocks": _UP},
}


def open_single_file(path: Path) -> tuple[Component, Component]:
    """Opens the transformer and the VAE of a release, under diffusers' names.

    Raises UserError where the file is damaged or holds something else.
    """
    tensors = open_tensors(path)
    transformer, vae = _with_prefix(tensors, TRANSFORMER), _with_prefix(tensors, VAE)
    if not (transformer and vae):
        raise UserError(f"{path} holds no tensors {TRANSFORMER}… and {VAE}…: name a release of LTX-Video")
    release = _release(vae)
    return _transformer(transformer), Component(VAES[release], dict(_vae_tensors(vae, release)))


def read_sampler(path: Path, vae: Component) -> Sampler:
    """The sampler that the file's header describes; the first two releases are known by their VAE.

    Raises UserError where a later release's header lacks it, and for settings that are not supported.
    """
    try:
        config = json.loads(read_header(path).get("config", "{}"))
    except ValueError as error:
        raise UserError(f"{path}: the header's config is damaged ({error}): download it again") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: the header's config holds no settings: download it again")
    if "transformer" in config and "scheduler" in config:
        return parse_header(config)
    if vae.settings == VAES["0.9.5"]:
        raise UserError(f"{path}: its header names no sampler, which releases from 0.9.5 on have: download it again")
    return Sampler()


def _with_prefix(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


def _release(vae: Mapping[str, Any]) -> str:
    """The first release with this VAE, recognised as in diffusers' loaders/single_file_utils.py."""
    out = vae.get("encoder.conv_out.conv.weight")
    if out is not None and out.get_shape()[1] == 2048:
        return "0.9.5"
    return "0.9.1" if any(name.startswith("decoder.last_time_embedder") for name in vae) else "0.9.0"


def _transformer(tensors: Mapping[str, Any]) -> Component:
    named = {renamed(name, RENAMED): x for name, x in tensors.items()}
    blocks = {int(match[1]) for name in named if (match := re.match(r"transformer_blocks\.(\d+)\.", name))}
    width = named["proj_in.bias"].get_shape()[0] if "proj_in.bias" in named else 2048
    heads = _TRANSFORMER["num_attention_heads"]
    sizes = {"num_layers": len(blocks), "attention_head_dim": width // heads, "cross_attention_dim": width}
    return Component(_TRANSFORMER | sizes, named)


def _vae_tensors(tensors: Mapping[str, Any], release: str) -> Iterator[tuple[str, Any]]:
    """The VAE's tensors under diffusers' names, without statistics that the network does not need."""
    for name, x in tensors.items():
        kind, _, statistic = name.partition(".")
        if kind == "per_channel_statistics":
            if statistic in STATISTICS:
                yield STATISTICS[statistic], x
            continue
        for half, blocks in BLOCKS[release].items():
            if match := re.match(rf"{half}\.(\d+)\.", name):
                if int(match[1]) >= len(blocks):
                    raise UserError(
                        f"tensor vae.{name} is no block of release {release}: use a release to 0.9.8, of 2 B"
                    )
                side = half.partition(".")[0]
                name = f"{side}.{blocks[int(match[1])]}.{name[match.end() :]}"
        yield renamed(name, VAE_RENAMED), x


def renamed(name: str, replacements: Mapping[str, str]) -> str:
    """The name with each key of `replacements` replaced by its value."""
    for old, new in replacements.items():
        name = name.replace(old, new)
    return name
