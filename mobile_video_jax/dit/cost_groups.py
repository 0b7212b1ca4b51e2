"""Groups of the transformer's modules under which parameters, FLOPs and activations are reported."""

import re

ATTENTIONS = ("self_attention", "cross_attention")
PROJECTIONS = frozenset(
    (
        *("q", "k", "v", "q_norm", "k_norm", "q_features", "k_features", "linear_norm", "conv", "gate", "out"),
        *("k_squares", "v_squares", "k_squares_norm"),
    )
)
RESAMPLING = re.compile(r"(down|up)_\d+")
MODULES = {
    "ffn": "ffn",
    "cross_attention_norm": "cross_attention_projections",
    **dict.fromkeys(("text_projection", "time_in", "time_out", "pooled_text", "patch_in", "output"), "embeddings"),
}


def cost_group(path: str) -> str:
    """Maps a parameter path or module scope of Dit to its group.

    Groups: ffn, embeddings, resampling (between resolutions, and skips between blocks), modulation (the shared matrix,
    and the tables of blocks and output layer), and for each attention its projections (with the norms of queries and
    keys) and products (q k^T and weights times v, and what other kinds of attention have in their place). Raises
    KeyError for an unknown module.
    """
    names = path.split("/")
    if "modulation" in names:
        return "modulation"
    for attention in ATTENTIONS:
        if attention in names:
            return f"{attention}_projections" if PROJECTIONS & set(names) else f"{attention}_products"
    for name in names:
        if RESAMPLING.fullmatch(name) or name == "skip":
            return "resampling"
        if name in MODULES:
            return MODULES[name]
    raise KeyError(f"{path} is in no cost group: add its module to dit/cost_groups.py")
