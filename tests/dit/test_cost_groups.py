"""Every parameter, FLOP and activation of the transformer against formulas of its sizes, part by part."""

import dataclasses

import pytest

from configs import dit
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.dit.cost_groups import cost_group
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.dit import DitStage

PRUNED = ((4, 2, 512), (3, 4, 384), (1, 1, 64))


def stage(variant: str, **model) -> DitStage:
    config = from_mapping(DitTraining, dit.get_config(variant).to_dict())
    return DitStage(dataclasses.replace(config, model=dataclasses.replace(config.model, **model)))


def formulas(stage: DitStage) -> dict[str, dict[str, int]]:
    """D the width, A the channels of a block's heads, H those of its FFN; n tokens, s of text, c latent channels."""
    cfg, model = stage.config, stage.config.model
    d, s, e, f = model.width, cfg.text_tokens, cfg.text_width, model.time_features
    *grid, c = stage.denoiser.latent_shape
    n, hd, blocks = grid[0] * grid[1] * grid[2], model.head_dim, model.block_shapes
    self_widths, cross_widths = [block.heads * hd for block in blocks], [block.cross_heads * hd for block in blocks]
    hidden = [block.ffn for block in blocks]
    squares = 2 + model.pooled_text  # text_projection/out, time_out and pooled_text
    scales = lambda a: 2 * a if model.qk_norm_across_heads else 2 * hd
    attention = lambda sizes: sum(4 * d * a + 3 * a + d + scales(a) for a in sizes)
    parameters = {
        "self_attention_projections": attention(self_widths),
        "cross_attention_projections": attention(cross_widths),
        "ffn": sum(2 * d * h + h + d for h in hidden),
        "modulation": 6 * d * (d + 1) + 6 * d * len(blocks) + 2 * d,
        "embeddings": (e + 1) * d + (f + 1) * d + squares * (d + 1) * d + (c + 1) * d + (d + 1) * c,
    }
    flops = {
        "self_attention_projections": sum(8 * n * d * a for a in self_widths),
        "self_attention_products": sum(4 * n * n * a for a in self_widths),
        "cross_attention_projections": sum(4 * (n + s) * d * a for a in cross_widths),
        "cross_attention_products": sum(4 * n * s * a for a in cross_widths),
        "ffn": sum(4 * n * d * h for h in hidden),
        "modulation": 12 * d * d,
        "embeddings": 2 * (s * e * d + s * d * d + f * d + (squares - 1) * d * d + 2 * n * c * d),
    }
    values = {
        "self_attention_projections": n * max(d, *self_widths),
        "self_attention_products": n * max(n, hd) * max(block.heads for block in blocks),
        "cross_attention_projections": max(n, s) * max(d, *cross_widths),
        "cross_attention_products": n * max(s, hd) * max(block.cross_heads for block in blocks),
        "ffn": n * max(d, *hidden),
        "modulation": 6 * d,
        "embeddings": max(n, s) * d,
    }
    activations = {part: count * {"float32": 4, "bfloat16": 2}[model.dtype] for part, count in values.items()}
    return {"parameters": parameters, "flops": flops, "activation_bytes": activations}


@pytest.mark.parametrize(
    ("variant", "changes"),
    [("tiny", {}), ("tiny", {"blocks": PRUNED}), ("server", {}), ("mobile", {"scan": False, "depth": 2}), ("ltx", {})],
)
def test_each_part_follows_from_the_shapes(variant, changes):
    dit_stage = stage(variant, **changes)
    costs, expected = dit_stage.inspect(), formulas(dit_stage)
    assert costs["activation_bytes"] == expected["activation_bytes"]
    for kind in ("parameters", "flops"):
        assert costs[kind] == {"total": sum(expected[kind].values()), **expected[kind]}
    assert costs["bytes"] == costs["bytes_by_part"]["total"] == 4 * sum(expected["parameters"].values())
    assert all(costs["bytes_by_part"][part] == 4 * count for part, count in expected["parameters"].items())


def test_a_module_of_no_part_is_told_of():
    assert cost_group("Dit/Dit._blocks/block_1/self_attention/bnhd,bmhd->bhnm") == "self_attention_products"
    assert cost_group("text_projection/out/kernel") == "embeddings"
    with pytest.raises(KeyError, match="new_layer"):
        cost_group("Dit/new_layer")
