"""LTX-Video's transformer here and in diffusers: the same function of the same tensors."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import LTXVideoTransformer3DModel

from configs.dit import MODELS
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.interop.ltx_transformer import dit_config, settings, sources
from mobile_video_jax.interop.mapping import published, read_params
from mobile_video_jax.nn.module import init
from tests.nets import normal, run

CHANNELS, TEXT_WIDTH, FRAME_RATE = 5, 7, 30.0
# Heads and their dimension: of 48 channels RoPE turns all, of 20 all but two.
SIZES = {"whole": (3, 16), "remainder": (2, 10)}


class Pair(NamedTuple):
    peer: Any
    config: DitConfig
    params: Any


def inputs(grid: tuple[int, int, int]) -> tuple:
    """Two noisy clips, their times, and text of which the second has two tokens."""
    text_mask = jnp.asarray(np.arange(6) < np.array([[6], [2]]))
    return normal(0, 2, *grid, CHANNELS), jnp.array([0.9, 0.25]), normal(1, 2, 6, TEXT_WIDTH), text_mask


def shapes(config: DitConfig, *example: Any) -> Any:
    return nn.unbox(jax.eval_shape(lambda *x: init(Dit(config), jax.random.key(0), *x), *example))


def tensors(peer: Any) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in peer.state_dict().items()}


@pytest.fixture(scope="module", params=SIZES)
def pair(request) -> Pair:
    heads, head_dim = SIZES[request.param]
    peer = LTXVideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        cross_attention_dim=heads * head_dim,
        num_layers=2,
        caption_channels=TEXT_WIDTH,
    ).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, values in peer.named_parameters():
        values.normal_(float("norm_" in name), 0.3, generator=generator)
    config = dit_config(peer.config, frame_rate=FRAME_RATE)
    like = shapes(config, *inputs((1, 1, 1)))
    return Pair(peer, config, read_params(tensors(peer), sources(config), like, "transformer"))


@pytest.mark.parametrize("grid", [(1, 3, 4), (4, 2, 3), (7, 5, 16)])
def test_the_velocity_is_theirs(pair, grid):
    x, t, text, text_mask = inputs(grid)
    rows = [torch.tensor(np.asarray(array)) for array in (x.reshape(2, -1, CHANNELS), text, 1000 * t)]
    mask, scale = torch.tensor(np.asarray(text_mask)).float(), (8 / FRAME_RATE, 32, 32)
    expected = pair.peer(*rows, mask, *grid, rope_interpolation_scale=scale, return_dict=False)[0].numpy()
    velocity = np.asarray(run(Dit(pair.config), pair.params, x, t, text, text_mask)).reshape(expected.shape)
    assert np.linalg.norm(velocity - expected) < 1e-4 * np.linalg.norm(expected)


def test_there_and_back_is_the_identity_to_the_bit(pair):
    back, originals = published(pair.params, sources(pair.config)), tensors(pair.peer)
    assert back.keys() == originals.keys()
    assert all(back[name].tobytes() == originals[name].tobytes() for name in originals)
    written = settings(pair.config, CHANNELS, TEXT_WIDTH)
    assert written.items() <= {**pair.peer.config, "_class_name": type(pair.peer).__name__}.items()
    assert dit_config(written, frame_rate=FRAME_RATE) == pair.config


def test_the_variant_is_the_published_model():
    with torch.device("meta"):
        peer = LTXVideoTransformer3DModel()
    example = jax.eval_shape(lambda: (*inputs((1, 1, 1))[:2], jnp.zeros((2, 6, 4096)), jnp.ones((2, 6), bool)))
    example = (jax.ShapeDtypeStruct((2, 1, 1, 1, 128), jnp.float32), *example[1:])
    counted = count_parameters(shapes(MODELS["ltx"], *example))
    assert counted == sum(values.numel() for values in peer.parameters()) == 1_923_385_472
    running = {key: getattr(MODELS["ltx"], key) for key in ("scan", "remat", "dtype")}
    assert dataclasses.replace(dit_config(peer.config), **running) == MODELS["ltx"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 2}, r"patch_size=2 is not supported: use a model with patch_size=1"),
        ({"qk_norm": "layer_norm"}, "qk_norm='layer_norm' is not supported"),
        ({"norm_elementwise_affine": True}, "norm_elementwise_affine=True"),
        ({"attention_bias": False}, "attention_bias=False"),
        ({"cross_attention_dim": 1024}, "use a model with cross_attention_dim=2048"),
        ({"out_channels": 64}, "use a model with out_channels=128"),
        ({"sample_size": 32}, "sample_size=32 is unknown"),
    ],
)
def test_settings_that_the_network_lacks_are_named(change, message):
    with pytest.raises(UserError, match=message):
        dit_config({"_class_name": "LTXVideoTransformer3DModel", **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 20}, "has no model.heads=20"),
        ({"ffn": 6144}, "has no model.ffn=6144"),
        ({"qk_norm_across_heads": False}, "has no model.qk_norm_across_heads=False"),
        ({"rope_scale": ()}, "has no model.rope_scale="),
    ],
)
def test_a_transformer_of_another_kind_is_not_exported(change, message):
    with pytest.raises(UserError, match=message):
        settings(dataclasses.replace(dit_config({}), **change), 128, 4096)
