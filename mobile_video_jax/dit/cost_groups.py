"""The transformer's parts: what its parameters and FLOPs are counted by."""

ATTENTIONS = ("self_attention", "cross_attention")
PROJECTIONS = frozenset({"q", "k", "v", "q_norm", "k_norm", "out"})
MODULES = {
    "ffn": "ffn",
    **dict.fromkeys(("text_projection", "time_in", "time_out", "pooled_text", "patch_in", "output"), "embeddings"),
}


def cost_group(path: str) -> str:
    """The one part that a parameter's path or a scope of Dit belongs to.

    Both attentions have `projections`, with the norms of queries and keys, and `products`, q k^T and weights times v.
    `modulation` is the shared matrix and the tables of blocks and output. Raises KeyError for a module of no part.
    """
    names = path.split("/")
    if "modulation" in names:
        return "modulation"
    for attention in ATTENTIONS:
        if attention in names:
            return f"{attention}_projections" if PROJECTIONS & set(names) else f"{attention}_products"
    for name in names:
        if name in MODULES:
            return MODULES[name]
    raise KeyError(f"{path} is of no part of the transformer: name one for it in dit/cost_groups.py")
