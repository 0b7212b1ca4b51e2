"""Our transformer with Wan's weights computes what diffusers' class computes."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.dit import get_config
from mobile_video_jax.core.clip import Compression
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.interop.mapping import published, read_params
from mobile_video_jax.interop.wan_transformer import DEFAULTS, dit_config, settings, sources
from mobile_video_jax.nn.module import apply
from mobile_video_jax.stages.config import DitTraining

SIZES: dict[str, Any] = {
    **{"num_attention_heads": 3, "attention_head_dim": 22, "in_channels": 5, "out_channels": 5},
    **{"text_dim": 11, "ffn_dim": 40, "num_layers": 2, "freq_dim": 32},
}


@pytest.fixture(scope="module")
def pair() -> Any:
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.WanTransformer3DModel(**SIZES).eval()
    for x in theirs.parameters():
        torch.nn.init.normal_(x, std=0.2)
    config = dit_config(theirs.config)
    tensors = {name: x.detach().numpy() for name, x in theirs.state_dict().items()}
    module = Dit(config)
    inputs = (jnp.zeros((1, 1, 2, 2, 20)), jnp.zeros(1), jnp.zeros((1, 4, 11)), jnp.ones((1, 4), bool))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs)["params"])
    params = jax.tree.map(jnp.asarray, read_params(tensors, sources(config), nn.unbox(shapes), "wan"))
    return SimpleNamespace(theirs=theirs, config=config, tensors=tensors, module=module, params=params)


def pack(x: np.ndarray) -> np.ndarray:
    """[b c t h w] to [b t h/2 w/2 4c], a patch's channels ordered (row, column, channel)."""
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, t, h // 2, 2, w // 2, 2).transpose(0, 2, 3, 5, 4, 6, 1)
    return x.reshape(b, t, h // 2, w // 2, 4 * c)


@pytest.mark.parametrize("grid", [(3, 4, 6), (1, 2, 2), (5, 8, 2)])
def test_velocities_are_equal(pair, grid):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, *grid), np.float32)
    # The second caption is shorter: zero states behind it, which are attended to.
    text, mask = rng.standard_normal((2, 7, 11), np.float32), np.arange(7) < np.array([[7], [3]])
    text = text * mask[..., None]
    t = np.array([0.8, 0.25], np.float32)
    with torch.no_grad():
        expected = pair.theirs(torch.tensor(x), torch.tensor(1000 * t), torch.tensor(text)).sample.numpy()
    inputs = map(jnp.asarray, (pack(x), t, text, mask))
    velocity = apply(pair.module, pair.params, *inputs)
    assert np.linalg.norm(velocity - pack(expected)) <= 1e-4 * np.linalg.norm(expected)


def test_a_time_for_each_frame_equals_a_time_for_each_token(pair):
    """Wan 2.2 TI2V: the conditioning frame's tokens are at time 0."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    x, text = rng.standard_normal((1, 5, 2, 4, 4), np.float32), rng.standard_normal((1, 3, 11), np.float32)
    frames = np.array([[0.0, 0.6]], np.float32)
    with torch.no_grad():
        tokens = torch.tensor(1000 * np.repeat(frames, 4, axis=1))
        expected = pair.theirs(torch.tensor(x), tokens, torch.tensor(text)).sample.numpy()
    inputs = map(jnp.asarray, (pack(x), frames, text, np.ones((1, 3), bool)))
    velocity = apply(pair.module, pair.params, *inputs)
    assert np.linalg.norm(velocity - pack(expected)) <= 1e-4 * np.linalg.norm(expected)


def test_names_layouts_and_settings_are_undone_to_the_bit(pair):
    tensors = published(pair.params, sources(pair.config))
    assert tensors.keys() == pair.tensors.keys()
    assert all(np.array_equal(x, pair.tensors[name]) for name, x in tensors.items())
    back = settings(pair.config, 20, 11)
    assert {key: tuple(x) if isinstance(x, list) else x for key, x in back.items() if key in DEFAULTS} == {
        key: tuple(x) if isinstance(x, list) else x for key, x in pair.theirs.config.items() if key in DEFAULTS
    }


@pytest.mark.parametrize(
    ("variant", "sizes"),
    [
        ("wan", {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}),
        (
            "ti2v",
            {"num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "in_channels": 48, "out_channels": 48},
        ),
    ],
)
def test_the_config_has_the_published_sizes(variant, sizes):
    config = from_mapping(DitTraining, get_config(variant).to_dict())
    running = {key: getattr(config.transformer, key) for key in ("scan", "remat", "dtype")}
    assert dataclasses.replace(dit_config(sizes), **running) == config.transformer
    assert Compression.parse(config.compression).channels == 4 * sizes.get("in_channels", 16)


@pytest.mark.parametrize(
    "change", [{"image_dim": 1280}, {"added_kv_proj_dim": 64}, {"patch_size": (1, 1, 1)}, {"window": 3}]
)
def test_other_models_are_refused_by_name(change):
    with pytest.raises(UserError, match=next(iter(change))):
        dit_config(SIZES | change)
