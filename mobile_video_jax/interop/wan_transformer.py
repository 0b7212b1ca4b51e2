"""Wan's transformer (arXiv 2503.20314, text to video) in diffusers' format: config.json and tensor names, both ways.

Its tokens are patches of 2 x 2 latent positions. Here the VAE packs such a patch into one position (vae/wan), so that
the transformer has patches of 1: a patch's channels are ordered (row, column, channel).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.interop.attention_layers import attention, linear, rope_layout
from mobile_video_jax.interop.mapping import AS_IS, Layout, Source
from mobile_video_jax.interop.setting_types import check_types

CLASS = "WanTransformer3DModel"
PATCH = 2  # rows and columns of a patch
# diffusers' defaults for keys that config.json omits.
DEFAULTS: dict[str, Any] = {
    "patch_size": (1, PATCH, PATCH),
    "num_attention_heads": 40,
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 13824,
    "num_layers": 40,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "image_dim": None,
    "added_kv_proj_dim": None,
    "rope_max_seq_len": 1024,
    "pos_embed_seq_len": None,
}
# Keys that must have these values: other ones are models of image to video, or unpublished.
FIXED_KEYS = ("patch_size", "cross_attn_norm", "qk_norm", "eps", "image_dim", "added_kv_proj_dim", "pos_embed_seq_len")
# Keys of DitConfig that do not change the network's function.
IGNORED_KEYS = ("scan", "remat", "dtype")

# Our path -> diffusers' name: of layers outside blocks, of FFN and attention layers in a block.
NETWORK = {
    "text_projection/in": "condition_embedder.text_embedder.linear_1",
    "text_projection/out": "condition_embedder.text_embedder.linear_2",
    "time_in": "condition_embedder.time_embedder.linear_1",
    "time_out": "condition_embedder.time_embedder.linear_2",
    "modulation": "condition_embedder.time_proj",
    "output/velocity": "proj_out",
}
FFN = {"up": "net.0.proj", "down": "net.2"}
# Tables are published with a leading axis; patches as a convolution [out, channel, 1, row, column].
TABLE = Layout(lambda x: x[0], lambda x: x[None])


def dit_config(settings: Mapping[str, Any]) -> DitConfig:
    """Parses the config.json of a transformer. Raises UserError naming a key that is unknown or not supported."""
    specified = {key: value for key, value in settings.items() if not key.startswith("_")}
    for key in specified.keys() - DEFAULTS.keys():
        raise UserError(f"config.json: {key}={specified[key]!r} is unknown: name the folder of a {CLASS}")
    check_types(specified, DEFAULTS, "config.json")
    values = DEFAULTS | specified
    values |= {
        "patch_size": tuple(values["patch_size"]),
        "out_channels": values["out_channels"] or values["in_channels"],
    }
    required = {key: DEFAULTS[key] for key in FIXED_KEYS} | {"out_channels": values["in_channels"]}
    for key, value in required.items():
        if values[key] != value:
            raise UserError(
                f"config.json: {key}={values[key]!r} is not supported: use a text-to-video model with {key}={value!r}"
            )
    return DitConfig(
        width=values["num_attention_heads"] * values["attention_head_dim"],
        depth=values["num_layers"],
        heads=values["num_attention_heads"],
        head_dim=values["attention_head_dim"],
        ffn=values["ffn_dim"],
        time_features=values["freq_dim"],
        pooled_text=False,
        rope_theta=10_000.0,
        qk_norm_across_heads=True,
        qk_norm_eps=values["eps"],
        norm_eps=values["eps"],
        final_layer_norm=True,
        block_layer_norm=True,
        cross_attention_norm=True,
        attend_text_padding=True,
    )


def settings(config: DitConfig, channels: int, text_width: int) -> dict[str, Any]:
    """The config.json of a transformer for packed latents of `channels` channels: the inverse of dit_config.

    Raises UserError, naming the key, for a transformer that diffusers' class cannot represent, such as a pruned one.
    """
    values = DEFAULTS | {
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_dim,
        "in_channels": channels // PATCH**2,
        "out_channels": channels // PATCH**2,
        "text_dim": text_width,
        "freq_dim": config.time_features,
        "ffn_dim": config.ffn,
        "num_layers": config.depth,
    }
    for key, value in dataclasses.asdict(dit_config(values)).items():
        if key not in IGNORED_KEYS and getattr(config, key) != value:
            raise UserError(
                f"diffusers' {CLASS} has no model.{key}={getattr(config, key)}: export a model with {value}"
            )
    return {"_class_name": CLASS, **values, "patch_size": list(values["patch_size"])}


def sources(config: DitConfig) -> dict[str, Source]:
    """Source of each parameter of a transformer with one tree per block."""
    sources = {
        "output/modulation": Source("scale_shift_table", TABLE),
        "patch_in/kernel": Source("patch_embedding.weight", _patches()),
        "patch_in/bias": Source("patch_embedding.bias"),
    }
    for ours, theirs in NETWORK.items():
        sources |= linear(ours, theirs)
    for i in range(config.depth):
        ours, theirs = f"block_{i}", f"blocks.{i}"
        sources[f"{ours}/modulation"] = Source(f"{theirs}.scale_shift_table", TABLE)
        sources[f"{ours}/cross_attention_norm/scale"] = Source(f"{theirs}.norm2.weight")
        sources[f"{ours}/cross_attention_norm/bias"] = Source(f"{theirs}.norm2.bias")
        for name, their_name in FFN.items():
            sources |= linear(f"{ours}/ffn/{name}", f"{theirs}.ffn.{their_name}")
        sources |= attention(f"{ours}/self_attention", f"{theirs}.attn1", rope_layout(config))
        sources |= attention(f"{ours}/cross_attention", f"{theirs}.attn2", AS_IS)
    return sources


def _patches() -> Layout:
    """A convolution over patches as a matrix of their channels."""
    return Layout(
        lambda x: x.transpose(2, 3, 4, 1, 0).reshape(-1, x.shape[0]),
        lambda x: x.reshape(1, PATCH, PATCH, -1, x.shape[-1]).transpose(4, 3, 0, 1, 2),
    )
