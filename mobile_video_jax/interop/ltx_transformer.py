"""LTX-Video's transformer (arXiv 2501.00103) in diffusers' format: config.json and tensor names, both ways."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.interop.attention_layers import attention, linear, rope_layout
from mobile_video_jax.interop.mapping import AS_IS, Source
from mobile_video_jax.interop.setting_types import check_types

CLASS = "LTXVideoTransformer3DModel"
# diffusers' defaults for keys that config.json omits.
DEFAULTS: dict[str, Any] = {
    "in_channels": 128,
    "out_channels": 128,
    "patch_size": 1,
    "patch_size_t": 1,
    "num_attention_heads": 32,
    "attention_head_dim": 64,
    "cross_attention_dim": 2048,
    "num_layers": 28,
    "activation_fn": "gelu-approximate",
    "qk_norm": "rms_norm_across_heads",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "caption_channels": 4096,
    "attention_bias": True,
    "attention_out_bias": True,
}
# Keys that must have the published values; the last norm's eps is 1e-6 whatever norm_eps is.
FIXED_KEYS = (
    "patch_size",
    "patch_size_t",
    "activation_fn",
    "qk_norm",
    "norm_elementwise_affine",
    "norm_eps",
    "attention_bias",
    "attention_out_bias",
)
# Keys of DitConfig that the pipeline decides, or that do not change the network's function.
IGNORED_KEYS = ("rope_scale", "rope_offset", "scan", "remat", "dtype")

# Our path -> diffusers' name: of layers outside blocks, of FFN and attention layers in a block.
NETWORK = {
    "patch_in": "proj_in",
    "text_projection/in": "caption_projection.linear_1",
    "text_projection/out": "caption_projection.linear_2",
    "time_in": "time_embed.emb.timestep_embedder.linear_1",
    "time_out": "time_embed.emb.timestep_embedder.linear_2",
    "modulation": "time_embed.linear",
    "output/velocity": "proj_out",
}
FFN = {"up": "net.0.proj", "down": "net.2"}


def dit_config(
    settings: Mapping[str, Any],
    *,
    frame_rate: float = 25.0,
    time_stride: int = 8,
    space_stride: int = 32,
    causal: bool = False,
) -> DitConfig:
    """Parses the config.json of a transformer, for clips of `frame_rate` fps under a VAE of these strides.

    With `causal` positions the first latent frame is one frame, as from 0.9.5 on. Raises UserError naming a key that is
    unknown or whose value is not supported. Keys that start with "_" are diffusers' notes and are ignored.
    """
    specified = {key: value for key, value in settings.items() if not key.startswith("_")}
    for key in specified.keys() - DEFAULTS.keys():
        raise UserError(f"config.json: {key}={specified[key]!r} is unknown: name the folder of an {CLASS}")
    check_types(specified, DEFAULTS, "config.json")
    values = DEFAULTS | specified
    values["out_channels"] = values["out_channels"] or values["in_channels"]
    width = values["num_attention_heads"] * values["attention_head_dim"]
    required = {key: DEFAULTS[key] for key in FIXED_KEYS}
    required |= {"out_channels": values["in_channels"], "cross_attention_dim": width}
    for key, value in required.items():
        if values[key] != value:
            raise UserError(f"config.json: {key}={values[key]!r} is not supported: use a model with {key}={value!r}")
    return DitConfig(
        width=width,
        depth=values["num_layers"],
        heads=values["num_attention_heads"],
        head_dim=values["attention_head_dim"],
        ffn=4 * width,
        pooled_text=False,
        rope_theta=10_000.0,
        rope_scale=(time_stride / frame_rate, float(space_stride), float(space_stride)),
        rope_offset=1 - 1 / time_stride if causal else 0.0,
        qk_norm_across_heads=True,
        qk_norm_eps=1e-5,
        norm_eps=1e-6,
        final_layer_norm=True,
    )


def settings(config: DitConfig, channels: int, text_width: int) -> dict[str, Any]:
    """The config.json of a transformer for latents of `channels` channels: the inverse of dit_config.

    Raises UserError, naming the key, for a transformer that diffusers' class cannot represent, such as a pruned one.
    """
    values = DEFAULTS | {
        "in_channels": channels,
        "out_channels": channels,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_dim,
        "cross_attention_dim": config.width,
        "num_layers": config.depth,
        "caption_channels": text_width,
    }
    if not config.rope_scale or config.heads * config.head_dim != config.width:
        key = "heads" if config.rope_scale else "rope_scale"
        raise UserError(
            f"diffusers' {CLASS} has no model.{key}={getattr(config, key)}: export a model imported from it"
        )
    expected = dit_config(values)
    for key, value in dataclasses.asdict(expected).items():
        if key not in IGNORED_KEYS and getattr(config, key) != value:
            raise UserError(
                f"diffusers' {CLASS} has no model.{key}={getattr(config, key)}: export a model with {value}"
            )
    return {"_class_name": CLASS, **values}


def sources(config: DitConfig) -> dict[str, Source]:
    """Source of each parameter of a transformer with one tree per block."""
    sources = {"output/modulation": Source("scale_shift_table")}
    for ours, theirs in NETWORK.items():
        sources |= linear(ours, theirs)
    for i in range(config.depth):
        ours, theirs = f"block_{i}", f"transformer_blocks.{i}"
        sources[f"{ours}/modulation"] = Source(f"{theirs}.scale_shift_table")
        for name, their_name in FFN.items():
            sources |= linear(f"{ours}/ffn/{name}", f"{theirs}.ff.{their_name}")
        sources |= attention(f"{ours}/self_attention", f"{theirs}.attn1", rope_layout(config))
        sources |= attention(f"{ours}/cross_attention", f"{theirs}.attn2", AS_IS)
    return sources
