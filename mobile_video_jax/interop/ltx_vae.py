"""LTX-Video's VAE in diffusers' format: settings and tensor names of AutoencoderKLLTXVideo, both ways."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.interop.mapping import AS_IS, CONV, LINEAR, Layout, Source
from mobile_video_jax.interop.setting_types import check_types
from mobile_video_jax.nn.module import init
from mobile_video_jax.vae.latent_stats import LatentStats
from mobile_video_jax.vae.ltx.config import PATCH, STEPS, LtxVaeConfig, Step
from mobile_video_jax.vae.ltx.model import LtxVae

CLASS = "AutoencoderKLLTXVideo"
STATISTICS = ("latents_mean", "latents_std")
# Releases before 0.9.5 change a level's width by an extra block.
DOWN, DOWN_095 = "LTXVideoDownBlock3D", "LTXVideo095DownBlock3D"

# Settings that must have these values.
FIXED = {
    "_class_name": CLASS,
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": PATCH,
    "patch_size_t": 1,
    "encoder_causal": True,
}
IGNORED = {"_diffusers_version", "_name_or_path"}
# diffusers 0.42's defaults for keys that a file may omit, beside FIXED.
DEFAULTS: dict[str, Any] = {
    "latent_channels": 128,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": (DOWN,) * 4,
    "decoder_block_out_channels": (128, 256, 512, 512),
    "layers_per_block": (4, 3, 3, 3, 4),
    "decoder_layers_per_block": (4, 3, 3, 3, 4),
    "spatio_temporal_scaling": (True, True, True, False),
    "decoder_spatio_temporal_scaling": (True, True, True, False),
    "decoder_inject_noise": (False,) * 5,
    "downsample_type": ("conv",) * 4,
    "upsample_residual": (False,) * 4,
    "upsample_factor": (1,) * 4,
    "timestep_conditioning": False,
    "resnet_norm_eps": 1e-6,
    "scaling_factor": 1.0,
    "decoder_causal": False,
    "spatial_compression_ratio": None,
    "temporal_compression_ratio": None,
}
# Per-level lists: the list whose length is the number of levels, and the number of extra entries.
LENGTHS = {
    "spatio_temporal_scaling": ("down_block_types", 0),
    "downsample_type": ("down_block_types", 0),
    "layers_per_block": ("down_block_types", 1),
    "decoder_spatio_temporal_scaling": ("decoder_block_out_channels", 0),
    "upsample_residual": ("decoder_block_out_channels", 0),
    "upsample_factor": ("decoder_block_out_channels", 0),
    "decoder_layers_per_block": ("decoder_block_out_channels", 1),
    "decoder_inject_noise": ("decoder_block_out_channels", 1),
}

# Patterns of our module names and their replacements in published names.
MODULES = (
    (r"^(down|up)_(\d+)_", r"\1_blocks.\2."),
    (r"^mid_", "mid_block."),
    (r"block_(\d+)$", r"resnets.\1"),
    (r"(down|up)sample$", r"\1samplers.0"),
    (r"\btime$", "time_embedder.timestep_embedder"),
)
KERNELS = {2: LINEAR, 5: CONV}  # layout by a kernel's number of axes
# Per-channel values are published as [c, 1, 1].
CHANNELS = Layout(lambda x: x.reshape(-1), lambda x: x[:, None, None])


def vae_config(settings: Mapping[str, Any]) -> LtxVaeConfig:
    """Parses vae/config.json. Raises UserError naming a key whose value is not supported."""
    values = _checked(settings)
    widths, steps = _encoder(values)
    config = LtxVaeConfig(
        channels=values["latent_channels"],
        encoder_widths=widths,
        encoder_depths=tuple(values["layers_per_block"]),
        encoder_steps=steps,
        decoder_widths=tuple(values["decoder_block_out_channels"]),
        decoder_depths=tuple(values["decoder_layers_per_block"]),
        decoder_causal=values["decoder_causal"],
        up=tuple(values["decoder_spatio_temporal_scaling"]),
        up_factor=tuple(values["upsample_factor"]),
        up_residual=tuple(values["upsample_residual"]),
        noise=tuple(values["decoder_inject_noise"]),
        timestep_conditioning=values["timestep_conditioning"],
        norm_epsilon=values["resnet_norm_eps"],
    )
    _check_strides(config, values)
    _check_decoder(config, values)
    return config


def settings(config: LtxVaeConfig) -> dict[str, Any]:
    """The vae/config.json of a network, with every key: the inverse of vae_config."""
    newer = any(step in ("spatial", "temporal", "spatiotemporal") for step in config.encoder_steps)
    ours = {
        "latent_channels": config.channels,
        "block_out_channels": config.encoder_widths if newer else config.encoder_widths[:-1],
        "down_block_types": (DOWN_095 if newer else DOWN,) * len(config.encoder_steps),
        "decoder_block_out_channels": config.decoder_widths,
        "layers_per_block": config.encoder_depths,
        "decoder_layers_per_block": config.decoder_depths,
        "spatio_temporal_scaling": [step != "none" for step in config.encoder_steps],
        "decoder_spatio_temporal_scaling": config.up,
        "decoder_inject_noise": config.noise,
        "downsample_type": ["conv" if step == "none" else step for step in config.encoder_steps],
        "upsample_residual": config.up_residual,
        "upsample_factor": config.up_factor,
        "timestep_conditioning": config.timestep_conditioning,
        "resnet_norm_eps": config.norm_epsilon,
        "scaling_factor": 1.0,
        "decoder_causal": config.decoder_causal,
        "spatial_compression_ratio": config.strides.space,
        "temporal_compression_ratio": config.strides.time,
    }
    return FIXED | {key: list(value) if isinstance(value, tuple) else value for key, value in ours.items()}


def sources(config: LtxVaeConfig) -> dict[str, Source]:
    """Source of each parameter of LtxVae(config). The release has the tensors of latent_stats beside them."""
    space = config.strides.space
    params = jax.eval_shape(lambda: init(LtxVae(config), jax.random.key(0), jnp.zeros((1, 1, space, space, 3))))
    return {path: _source(path, x.ndim) for path, x in flatten_dict(nn.unbox(params), sep="/").items()}


def latent_stats(tensors: Mapping[str, Any], settings: Mapping[str, Any]) -> LatentStats:
    """Reads the published statistics, by which latents are normalised as (z - mean) scaling_factor / std.

    Raises UserError where a tensor is missing.
    """
    for name in STATISTICS:
        if name not in tensors:
            raise UserError(f"the VAE's tensor {name} is missing: download the folder again")
    mean, std = (np.asarray(tensors[name][...]).astype(np.float64) for name in STATISTICS)
    return LatentStats(tuple(mean.tolist()), tuple((std / settings.get("scaling_factor", 1.0)).tolist()))


def published_stats(stats: LatentStats) -> dict[str, np.ndarray]:
    """Statistics as published tensors, for a scaling_factor of 1."""
    return {name: np.asarray(x, np.float32) for name, x in zip(STATISTICS, (stats.mean, stats.std), strict=True)}


def _checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings, omitted ones with their defaults. Raises UserError for unknown keys and unsupported values."""
    for key, value in settings.items():
        if key not in FIXED.keys() | DEFAULTS.keys() | IGNORED:
            raise _unsupported(key, value, "diffusers 0.42 has no such setting")
        if key in FIXED and value != FIXED[key]:
            raise _unsupported(key, value, f"only {FIXED[key]!r} is")
    check_types(settings, DEFAULTS, "vae/config.json")
    values = {**DEFAULTS, **settings}
    for key, (levels, extra) in LENGTHS.items():
        if len(values[key]) != (count := len(values[levels]) + extra):
            raise _unsupported(key, values[key], f"{levels}={values[levels]} asks for {count} entries")
    return values


def _encoder(values: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[Step, ...]]:
    """The encoder's widths, one more than its steps, and its steps."""
    widths, kinds = tuple(values["block_out_channels"]), values["down_block_types"]
    if set(kinds) not in ({DOWN}, {DOWN_095}):
        raise _unsupported("down_block_types", kinds, f"all are {DOWN} or all {DOWN_095}")
    newer = kinds[0] == DOWN_095
    if len(widths) != len(kinds) + newer:
        raise _unsupported("block_out_channels", widths, f"{len(kinds)} blocks take {len(kinds) + newer} widths")
    for kind in values["downsample_type"]:
        if kind not in STEPS or kind == "none":
            raise _unsupported("downsample_type", kind, "conv, spatial, temporal and spatiotemporal are")
    types = values["downsample_type"] if newer else ["conv"] * len(kinds)
    pairs = zip(types, values["spatio_temporal_scaling"], strict=True)
    steps: tuple[Step, ...] = tuple(step if scaled else "none" for step, scaled in pairs)
    if not newer:
        return (*widths, widths[-1]), steps
    for step, width, following in zip(steps, widths, widths[1:], strict=False):
        if step in ("conv", "none") and width != following:
            raise _unsupported("block_out_channels", widths, f"a {DOWN_095} of type {step} keeps its width")
    return widths, steps


def _check_strides(config: LtxVaeConfig, values: Mapping[str, Any]) -> None:
    strides, ups = config.strides, 2 ** sum(config.up)
    for key, stride in (("spatial_compression_ratio", strides.space), ("temporal_compression_ratio", strides.time)):
        if values[key] not in (None, stride):
            raise _unsupported(key, values[key], f"the encoder's levels make it {stride}")
    if (strides.time, strides.space) != (ups, PATCH * ups):
        key = "decoder_spatio_temporal_scaling"
        raise _unsupported(key, values[key], f"it does not undo the encoder's strides, {strides}")


def _check_decoder(config: LtxVaeConfig, values: Mapping[str, Any]) -> None:
    """Raises UserError for decoders at which diffusers' own fails."""
    width = config.decoder_widths[-1]
    for level in config.up_levels():
        changes = level.width * level.factor != width
        if changes and (level.factor > 1 or level.noise or config.timestep_conditioning):
            reason = "a level that changes its width takes no noise, timestep or factor"
            raise _unsupported("decoder_block_out_channels", values["decoder_block_out_channels"], reason)
        if level.factor > 1 and not level.up:
            raise _unsupported("upsample_factor", values["upsample_factor"], "a level with a factor is upsampled")
        width = level.width


def _unsupported(key: str, value: Any, reason: str) -> UserError:
    return UserError(f"vae/config.json: {key}={value!r} is not supported: {reason}; use a published LTX-Video VAE")


def _source(path: str, axes: int) -> Source:
    """Source by path: decoder/up_0_block_1/conv2/kernel is decoder.up_blocks.0.resnets.1.conv2.conv.weight."""
    *modules, leaf = path.split("/")
    for ours, theirs in MODULES:
        modules = [re.sub(ours, theirs, module) for module in modules]
    if leaf in ("kernel", "scale", "bias"):
        modules += [] if modules[-1].startswith(("linear", "norm")) else ["conv"]
        return Source(".".join((*modules, "bias" if leaf == "bias" else "weight")), KERNELS.get(axes, AS_IS))
    return Source(".".join((*modules, leaf)), CHANNELS if leaf.startswith("per_channel") else AS_IS)
