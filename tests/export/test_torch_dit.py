"""The transformer's PyTorch mirror equals it, and takes no parameters but its own."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from export.pytorch.dit import Dit as TorchDit
from export.pytorch.load import load_params
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.stacking import stack_blocks
from tests.dit.test_model import inputs

# Heads and hidden channels of their own in each block, as pruning leaves them; blocks of one shape can be scanned.
PRUNED = DitConfig(width=24, head_dim=12, blocks=((2, 1, 32), (1, 2, 20)), time_features=16)
EQUAL = dataclasses.replace(PRUNED, blocks=((2, 2, 16), (2, 2, 16)), pooled_text=False)
# As LTX-Video's transformer is, pruned: some of four heads, each with angles of its own.
ACROSS_HEADS = DitConfig(
    width=24,
    head_dim=6,
    blocks=((2, 1, 32), (3, 2, 20)),
    time_features=16,
    pooled_text=False,
    rope_theta=1e4,
    rope_scale=(0.32, 32.0, 32.0),
    rope_heads=((0, 3), (1, 2, 3)),
    qk_norm_across_heads=True,
    qk_norm_eps=1e-5,
    norm_eps=1e-6,
    final_layer_norm=True,
)
# As Wan's transformer is: LayerNorm in the blocks, one with scales before cross-attention, padding attended to.
WAN = dataclasses.replace(
    EQUAL,
    qk_norm_across_heads=True,
    final_layer_norm=True,
    block_layer_norm=True,
    cross_attention_norm=True,
    attend_text_padding=True,
)
LATENTS, TEXT_WIDTH = (3, 2, 4, 6), 10


def random_params(config: DitConfig) -> dict:
    shapes = nn.unbox(jax.eval_shape(lambda *x: Dit(config).init(jax.random.key(0), *x)["params"], *inputs()))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape, np.float32), shapes)


def mirror(config: DitConfig) -> TorchDit:
    return TorchDit(config, LATENTS, TEXT_WIDTH)


@pytest.mark.parametrize(
    ("config", "layout"),
    [(PRUNED, dict), (EQUAL, stack_blocks), (ACROSS_HEADS, dict), (WAN, dict)],
    ids=["pruned", "stacked", "across heads", "wan"],
)
def test_the_mirror_equals_the_transformer(config: DitConfig, layout: Callable[[dict], dict]):
    params, arguments = random_params(config), inputs()
    expected = np.asarray(jax.jit(Dit(config).apply)({"params": params}, *arguments))
    dit = mirror(config)
    load_params(dit, layout(params))
    mirrored = dit(*(torch.tensor(np.asarray(array)) for array in arguments)).detach().numpy()
    assert np.abs(mirrored - expected).max() < 1e-5 * np.abs(expected).max()


def test_half_precision_copies_keep_their_clocks():
    """At 1000 t radians, frequencies in bf16 would turn the features of late times by whole radians."""
    params, (x, t, text, mask) = random_params(EQUAL), inputs()
    dit = mirror(EQUAL)
    load_params(dit, params)
    tensors = [torch.tensor(np.asarray(array)) for array in (x, jnp.full_like(t, 0.9), text, mask)]
    with torch.inference_mode():
        exact, half = dit(*tensors), dit.bfloat16()(*tensors)
    assert (half - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["block_1"]["ffn"].pop("down"), r"blocks.1.ffn.down.weight of shape \(24, 20\) is missing"),
        (lambda p: p["time_in"].update(extra=np.zeros(3)), r"time_in.extra of shape \(3,\) has no place"),
        (
            lambda p: p["block_0"]["self_attention"]["q"].update(kernel=np.zeros((24, 12))),
            r"blocks.0.self_attention.q.weight should be of shape \(24, 24\), not \(12, 24\)",
        ),
    ],
    ids=["missing", "left over", "other shape"],
)
def test_parameters_of_another_model_are_named(change: Callable[[dict], object], message: str):
    params = random_params(PRUNED)
    change(params)
    with pytest.raises(UserError, match=message):
        load_params(mirror(PRUNED), params)
