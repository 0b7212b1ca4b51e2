"""The compact U-Net: its frames, its attention, and the sizes that are published."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import unet
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.unet.attention import SharedAttention
from mobile_video_jax.unet.config import UnetConfig
from mobile_video_jax.unet.cost_groups import cost_group
from mobile_video_jax.unet.features import velocity_and_maps
from mobile_video_jax.unet.model import Unet
from tests.nets import normal, params_like, run

SMALL = UnetConfig(widths=(16, 32), residuals=(1, 1), blocks=(0, 1), head_dim=8, time_features=16)
INPUTS = (
    normal(0, 2, 3, 4, 4, 6),
    jnp.array([0.3, 0.8]),
    normal(1, 2, 5, 24),
    jnp.array([[True] * 5, [True, True, False, False, False]]),
)


@pytest.fixture(scope="module")
def params() -> dict:
    return params_like(Unet(SMALL), *INPUTS)


def denoiser(variant: str) -> Denoiser:
    return Denoiser(from_mapping(DitTraining, unet.get_config(variant).to_dict()))


def test_a_fresh_network_predicts_zero():
    velocity = jax.jit(lambda *inputs: Unet(SMALL).init_with_output(jax.random.key(0), *inputs)[0])(*INPUTS)
    assert velocity.shape == INPUTS[0].shape and not np.asarray(velocity).any()


def test_frames_are_independent_and_each_has_its_own_time(params):
    latents, t, *text = INPUTS
    whole = run(Unet(SMALL), params, *INPUTS)
    times = jnp.stack([t, jnp.zeros(2), t], axis=1)
    other = run(Unet(SMALL), params, latents.at[:, 2].add(1.0), times, *text)
    np.testing.assert_allclose(other[:, 0], whole[:, 0], atol=1e-5)
    assert np.abs(other[:, 1] - whole[:, 1]).max() > 1e-3 < np.abs(other[:, 2] - whole[:, 2]).max()


def test_padding_of_a_caption_changes_nothing_and_its_words_do(params):
    latents, t, text, mask = INPUTS
    whole = run(Unet(SMALL), params, *INPUTS)
    np.testing.assert_allclose(run(Unet(SMALL), params, latents, t, text.at[1, 2:].add(9.0), mask), whole, atol=1e-5)
    assert np.abs(run(Unet(SMALL), params, latents, t, text.at[1, 0].add(9.0), mask) - whole)[1].max() > 1e-3


@pytest.mark.slow
def test_a_level_sees_all_positions_of_the_lowest_resolution_and_passes_features_on(params):
    latents, *rest = INPUTS
    whole, features = velocity_and_maps(Unet(SMALL), params, *INPUTS)
    assert [x.shape for x in features] == [(2, 3, 2, 2, 32), (2, 3, 4, 4, 16)]
    other = run(Unet(SMALL), params, latents.at[:, :, 0, 0].add(1.0), *rest)
    assert np.abs(other - whole)[:, :, 3, 3].max() > 1e-5


def test_shared_keys_are_equal_to_as_many_heads_with_the_same_keys():
    x = normal(3, 2, 7, 32)
    shared, full = SharedAttention(4, 2, 8), SharedAttention(4, 4, 8)
    params = params_like(shared, x)
    # Query head r of group g is head 2 r + g: keys of 2 heads, repeated as a whole.
    repeated = dict(params)
    for name in ("k", "v"):
        repeated[name] = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf], axis=-1), params[name])
    np.testing.assert_allclose(run(shared, params, x), run(full, repeated, x), atol=1e-5)


@pytest.mark.slow
def test_sizes_are_those_that_are_published():
    assert denoiser("snapgen").describe()["parameters"] == pytest.approx(379e6, rel=0.03)
    # SDXL's text states have 2,048 channels.
    narrow = dataclasses.replace(denoiser("ladder_0").config, text_width=2048)
    assert Denoiser(narrow).describe()["parameters"] == pytest.approx(2567e6, rel=0.02)


@pytest.mark.slow
def test_each_reduction_but_two_takes_fewer_operations():
    """Separable convolutions are widened again, and the first level's cross-attention costs more than it replaces."""
    counts = [denoiser(f"ladder_{i}").inspect() for i in range(len(unet.LADDER))]
    for i, (before, after) in enumerate(itertools.pairwise(counts), 1):
        smaller = after["flops"]["total"] < before["flops"]["total"]
        assert smaller == (unet.REDUCTIONS[i] != {"expansion": 2} and i < len(counts) - 1), i


def test_every_part_is_counted_under_its_group():
    costs = denoiser("tiny").inspect()
    attention = {f"{kind}_attention_{part}" for kind in ("self", "cross") for part in ("projections", "products")}
    assert set(costs["flops"]) == attention | {"total", "ffn", "residual_blocks", "resampling", "embeddings"}
    with pytest.raises(KeyError, match="new_layer"):
        cost_group("Unet/new_layer")


def test_what_does_not_fit_is_refused_in_one_line():
    with pytest.raises(UserError, match="latents of 3 x 4 positions do not divide by 2"):
        jax.eval_shape(lambda x: Unet(SMALL).init(jax.random.key(0), x, *INPUTS[1:]), normal(0, 2, 3, 3, 4, 6))
    with pytest.raises(UserError, match=r"model.blocks has 1 entries, model.widths 2"):
        dataclasses.replace(SMALL, blocks=(1,))
    with pytest.raises(UserError, match="no multiple of model.head_dim=5"):
        dataclasses.replace(SMALL, head_dim=5)
    with pytest.raises(UserError, match="takes a transformer, not a network of family 'unet'"):
        _ = denoiser("tiny").config.transformer
