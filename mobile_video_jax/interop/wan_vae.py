"""Wan's VAE in diffusers' format: config.json and tensor names, both ways."""

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.interop.mapping import AS_IS, CONV, Layout, Source
from mobile_video_jax.interop.setting_types import check_types
from mobile_video_jax.interop.wan_transformer import PATCH
from mobile_video_jax.nn.module import init
from mobile_video_jax.vae.latent_stats import LatentStats
from mobile_video_jax.vae.wan.config import WanVaeConfig
from mobile_video_jax.vae.wan.model import WanVae

CLASS = "AutoencoderKLWan"
# diffusers' defaults for keys that config.json omits; the statistics have Wan 2.1's there and must be named here.
DEFAULTS: dict[str, Any] = {
    "base_dim": 96,
    "decoder_base_dim": None,
    "z_dim": 16,
    "dim_mult": (1, 2, 4, 4),
    "num_res_blocks": 2,
    "attn_scales": (),
    "temperal_downsample": (False, True, True),
    "dropout": 0.0,
    "is_residual": False,
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": None,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 8,
}
STATISTICS = ("latents_mean", "latents_std")

FRAME_CONV = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
POINT_CONV = Layout(lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None])
KERNELS = {2: POINT_CONV, 4: FRAME_CONV, 5: CONV}  # layout by a kernel's number of axes
CLIP_SCALE = Layout(lambda x: x.reshape(-1), lambda x: x[:, None, None, None])
FRAME_SCALE = Layout(lambda x: x.reshape(-1), lambda x: x[:, None, None])
ROOT = {"encoder/quant": "quant_conv", "decoder/post_quant": "post_quant_conv"}


def vae_config(settings: Mapping[str, Any]) -> WanVaeConfig:
    """Parses vae/config.json. Raises UserError naming a key whose value is not supported."""
    for key, value in settings.items():
        if key not in DEFAULTS.keys() | set(STATISTICS) and not key.startswith("_"):
            raise _unsupported(key, value, "diffusers 0.42 has no such setting")
    check_types(settings, DEFAULTS | dict.fromkeys(STATISTICS, (0.0,)), "vae/config.json")
    values: dict[str, Any] = DEFAULTS | dict(settings)
    patch = values["patch_size"] or 1
    if values["attn_scales"]:
        raise _unsupported("attn_scales", values["attn_scales"], "no published one has attention there")
    for key in ("in_channels", "out_channels"):
        if values[key] != 3 * patch**2:
            raise _unsupported(key, values[key], f"patches of {patch} have {3 * patch**2} channels")
    config = WanVaeConfig(
        channels=values["z_dim"],
        encoder_width=values["base_dim"],
        decoder_width=values["decoder_base_dim"] or values["base_dim"],
        multipliers=tuple(values["dim_mult"]),
        depth=values["num_res_blocks"],
        halves_time=tuple(values["temperal_downsample"][: len(values["dim_mult"]) - 1]),
        residual=values["is_residual"],
        pixel_patch=patch,
        token_patch=PATCH,
    )
    strides = {"scale_factor_temporal": config.strides.time, "scale_factor_spatial": config.strides.space // PATCH}
    for key, stride in strides.items():
        if values[key] != stride:
            raise _unsupported(key, values[key], f"its levels make it {stride}")
    return config


def settings(config: WanVaeConfig, stats: LatentStats) -> dict[str, Any]:
    """The vae/config.json of a network, with every key: the inverse of vae_config and latent_stats."""
    return {
        "_class_name": CLASS,
        **{key: list(value) if isinstance(value, tuple) else value for key, value in DEFAULTS.items()},
        "base_dim": config.encoder_width,
        "decoder_base_dim": None if config.decoder_width == config.encoder_width else config.decoder_width,
        "z_dim": config.channels,
        "dim_mult": list(config.multipliers),
        "num_res_blocks": config.depth,
        "temperal_downsample": list(config.halves_time),
        "is_residual": config.residual,
        "in_channels": 3 * config.pixel_patch**2,
        "out_channels": 3 * config.pixel_patch**2,
        "patch_size": config.pixel_patch if config.pixel_patch > 1 else None,
        "scale_factor_temporal": config.strides.time,
        "scale_factor_spatial": config.strides.space // config.token_patch,
        "latents_mean": list(stats.mean[: config.channels]),
        "latents_std": list(stats.std[: config.channels]),
    }


def latent_stats(settings: Mapping[str, Any], config: WanVaeConfig) -> LatentStats:
    """The published statistics, once for every position of a packed one. Raises UserError where they are missing."""
    for name in STATISTICS:
        if len(settings.get(name, ())) != config.channels:
            raise UserError(f"vae/config.json: {name} is not of {config.channels} channels: download the folder again")
    mean, std = (tuple(map(float, settings[name])) * config.token_patch**2 for name in STATISTICS)
    return LatentStats(mean, std)


def sources(config: WanVaeConfig) -> dict[str, Source]:
    """Source of each parameter of WanVae(config)."""
    space = config.strides.space
    params = jax.eval_shape(lambda: init(WanVae(config), jax.random.key(0), jnp.zeros((1, 1, space, space, 3))))
    return {path: _source(path, x.ndim, config) for path, x in flatten_dict(nn.unbox(params), sep="/").items()}


def _source(path: str, axes: int, config: WanVaeConfig) -> Source:
    """Source by path: decoder/up_0_block_1/conv2/kernel is decoder.up_blocks.0.resnets.1.conv2.weight."""
    module, _, leaf = path.rpartition("/")
    if module in ROOT:
        return Source(f"{ROOT[module]}.{_leaf(leaf)}", KERNELS.get(axes, AS_IS))
    name = re.sub(r"(down|up)_(\d+)_block_(\d+)", lambda match: _block(match, config), module)
    name = re.sub(r"(down|up)_(\d+)_(?:down|up)sample", lambda match: _resample(match, config), name)
    name = re.sub(r"mid_block_(\d+)", r"mid_block.resnets.\1", name).replace("mid_attention", "mid_block.attentions.0")
    name = name.replace("/", ".").replace(".resample", ".resample.1")
    if leaf == "scale":
        return Source(f"{name}.gamma", FRAME_SCALE if "attentions" in name else CLIP_SCALE)
    # The convolution over time of a step down is the step's own parameter here.
    if module.endswith("_downsample"):
        name = f"{name}.time_conv"
    return Source(f"{name}.{_leaf(leaf)}", KERNELS.get(axes, AS_IS))


def _block(match: re.Match[str], config: WanVaeConfig) -> str:
    side, level, i = match[1], int(match[2]), int(match[3])
    # The encoder of 2.1 numbers its blocks and steps consecutively.
    if side == "down" and not config.residual:
        return f"down_blocks.{level * (config.depth + 1) + i}"
    return f"{side}_blocks.{level}.resnets.{i}"


def _resample(match: re.Match[str], config: WanVaeConfig) -> str:
    side, level = match[1], int(match[2])
    if config.residual:
        return f"{side}_blocks.{level}.{side}sampler"
    if side == "down":
        return f"down_blocks.{level * (config.depth + 1) + config.depth}"
    return f"up_blocks.{level}.upsamplers.0"


def _leaf(leaf: str) -> str:
    return "bias" if leaf == "bias" else "weight"


def _unsupported(key: str, value: Any, reason: str) -> UserError:
    return UserError(f"vae/config.json: {key}={value!r} is not supported: {reason}; use a published Wan VAE")
