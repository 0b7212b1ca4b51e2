"""LTX-Video's transformer (arXiv 2501.00103) as diffusers keeps it: its config.json and its tensors' names."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.interop.mapping import AS_IS, LINEAR, Source, Turn

CLASS = "LTXVideoTransformer3DModel"
# What diffusers takes for a key that config.json lacks.
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
# Of these keys the network here knows the published values alone; its last norm has 1e-6 whatever norm_eps is.
ONLY = (
    *("patch_size", "patch_size_t", "activation_fn", "qk_norm", "norm_elementwise_affine", "norm_eps"),
    *("attention_bias", "attention_out_bias"),
)
# Keys of DitConfig that say how a model is run or where, not what it is.
OUTSIDE = ("rope_scale", "scan", "remat", "dtype")

# Our path within the network or a block -> diffusers' name.
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
PROJECTIONS = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
NORMS = {"q_norm": "norm_q", "k_norm": "norm_k"}


def dit_config(
    settings: Mapping[str, Any], *, frame_rate: float = 25.0, time_stride: int = 8, space_stride: int = 32
) -> DitConfig:
    """The transformer of a config.json, for clips of `frame_rate` frames a second under a VAE of these strides.

    Its latents have `in_channels`, its text states `caption_channels` numbers. Raises UserError naming a key whose
    value the network here does not have; keys that start with "_" are diffusers' own notes.
    """
    given = {key: value for key, value in settings.items() if not key.startswith("_")}
    for key in given.keys() - DEFAULTS.keys():
        raise UserError(f"config.json: {key}={given[key]!r} is unknown: name the folder of an {CLASS}")
    values = DEFAULTS | given
    values["out_channels"] = values["out_channels"] or values["in_channels"]
    width = values["num_attention_heads"] * values["attention_head_dim"]
    wanted = {key: DEFAULTS[key] for key in ONLY}
    for key, value in {**wanted, "out_channels": values["in_channels"], "cross_attention_dim": width}.items():
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
        qk_norm_across_heads=True,
        qk_norm_eps=1e-5,
        norm_eps=1e-6,
        final_layer_norm=True,
    )


def settings(config: DitConfig, channels: int, text_width: int) -> dict[str, Any]:
    """The config.json of a transformer for latents of so many channels: the inverse of dit_config.

    Raises UserError, naming the key, for a transformer that diffusers' class cannot be, as a pruned one.
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
        if key not in OUTSIDE and getattr(config, key) != value:
            raise UserError(
                f"diffusers' {CLASS} has no model.{key}={getattr(config, key)}: export a model with {value}"
            )
    return {"_class_name": CLASS, **values}


def sources(config: DitConfig) -> dict[str, Source]:
    """Our path -> diffusers' tensor, for parameters with one tree a block."""
    found = {"output/modulation": Source("scale_shift_table")}
    for ours, theirs in NETWORK.items():
        found |= _linear(ours, theirs)
    for i in range(config.depth):
        ours, theirs = f"block_{i}", f"transformer_blocks.{i}"
        found[f"{ours}/modulation"] = Source(f"{theirs}.scale_shift_table")
        for name, part in FFN.items():
            found |= _linear(f"{ours}/ffn/{name}", f"{theirs}.ff.{part}")
        found |= _attention(f"{ours}/self_attention", f"{theirs}.attn1", _by_halves(config))
        found |= _attention(f"{ours}/cross_attention", f"{theirs}.attn2", AS_IS)
    return found


def _linear(ours: str, theirs: str, order: Turn = AS_IS) -> dict[str, Source]:
    kernel = Turn(lambda x: LINEAR.ours(order.ours(x)), lambda x: order.theirs(LINEAR.theirs(x)))
    return {f"{ours}/kernel": Source(f"{theirs}.weight", kernel), f"{ours}/bias": Source(f"{theirs}.bias", order)}


def _attention(ours: str, theirs: str, order: Turn) -> dict[str, Source]:
    """`order` is of the channels of queries and keys, whose products do not depend on it."""
    found = {f"{ours}/{name}/scale": Source(f"{theirs}.{part}.weight", order) for name, part in NORMS.items()}
    for name, part in PROJECTIONS.items():
        found |= _linear(f"{ours}/{name}", f"{theirs}.{part}", order if name in ("q", "k") else AS_IS)
    return found


def _by_halves(config: DitConfig) -> Turn:
    """From heads whose neighbours (x[2j], x[2j+1]) RoPE turns to ours, of pairs (x[j], x[j + d/2])."""
    theirs = np.arange(config.width).reshape(config.heads, -1, 2)
    order = theirs.swapaxes(1, 2).ravel()
    inverse = np.argsort(order)
    return Turn(lambda x: x[order], lambda x: x[inverse])
