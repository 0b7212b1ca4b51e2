"""Groups of the U-Net's modules under which parameters, FLOPs and activations are reported."""

ATTENTIONS = ("self_attention", "cross_attention")
PROJECTIONS = frozenset({"q", "k", "v", "q_norm", "k_norm", "out"})
MODULES = {
    "ffn": "ffn",
    "ffn_norm": "ffn",
    "self_attention_norm": "self_attention_projections",
    "cross_attention_norm": "cross_attention_projections",
    **dict.fromkeys(("time_in", "time_out", "pooled_text", "norm_out", "conv_in", "conv_out"), "embeddings"),
}


def cost_group(path: str) -> str:
    """Maps a parameter path or module scope of Unet to its group.

    Groups: temporal_layers, residual_blocks, resampling, ffn, embeddings (of time and pooled text, and the first and
    last convolution), and for each attention within frames its projections (with norms) and products. Raises KeyError
    for an unknown module.
    """
    names = path.split("/")
    if any(name.startswith("temporal_") for name in names):
        return "temporal_layers"
    for attention in ATTENTIONS:
        if attention in names:
            return f"{attention}_projections" if PROJECTIONS & set(names) else f"{attention}_products"
    if {"residual", "middle_out"} & set(names):
        return "residual_blocks"
    if any(name.startswith(("downsample_", "upsample_")) for name in names):
        return "resampling"
    for name in names:
        if name in MODULES:
            return MODULES[name]
    raise KeyError(f"{path} is in no cost group: add its module to unet/cost_groups.py")
