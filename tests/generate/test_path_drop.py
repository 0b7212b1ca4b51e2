"""Guidance away from the network without its middle blocks."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_flops
from mobile_video_jax.diffusion.guidance import null_text
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.middle import without_middle
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.token_drop import params_without_middle
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.sampling import sample_latents
from mobile_video_jax.unet.config import UnetConfig
from mobile_video_jax.unet.model import Unet
from tests.nets import normal, params_like, run

SIZES = DitConfig(width=12, depth=9, heads=2, head_dim=6, ffn=16, time_features=8, scan=True)
TIMES = {"shift": 1.0, "terminal": 0.0, "schedule": "uniform"}
ONE = SampleConfig(steps=1, guidance=3.0, path_drop=True, **TIMES)
NOISE, TEXT, MASK = normal(0, 2, 2, 4, 4, 6), normal(1, 2, 3, 10), jnp.ones((2, 3), bool)


@pytest.fixture(scope="module")
def params() -> dict:
    return params_like(Dit(SIZES), NOISE, jnp.ones(2), TEXT, MASK)


def test_one_step_is_guided_away_from_the_first_and_last_blocks_without_a_caption(params):
    t = jnp.ones(2)
    strong = run(Dit(SIZES), params, NOISE, t, TEXT, MASK)
    weak = run(Dit(without_middle(SIZES)), params_without_middle(params, SIZES), NOISE, t, *null_text(TEXT, MASK))
    out = jax.jit(partial(sample_latents, Dit(SIZES), ONE))(params, NOISE, TEXT, MASK)
    np.testing.assert_allclose(out, NOISE - (weak + 3.0 * (strong - weak)), atol=1e-5)


def test_a_step_costs_little_more_than_one_without_guidance(params):
    def cost(**changes) -> int:
        config = dataclasses.replace(ONE, **changes)
        return sum(count_flops(partial(sample_latents, Dit(SIZES), config), params, NOISE, TEXT, MASK).values())

    plain = cost(guidance=1.0)
    assert cost(path_drop=False) == pytest.approx(2 * plain, rel=0.01)
    assert cost() == pytest.approx(plain * 13 / 9, rel=0.1)


def test_a_given_first_frame_stays_as_it_is(params):
    first = normal(5, 2, 1, 4, 4, 6)
    image = (first, jnp.array([True, False]))
    out = jax.jit(partial(sample_latents, Dit(SIZES), ONE, image=image))(params, NOISE, TEXT, MASK)
    np.testing.assert_array_equal(out[0, 0], first[0, 0])
    assert np.abs(out[1, 0] - first[1, 0]).max() > 0.1


def test_networks_and_settings_that_cannot_are_refused(params):
    with pytest.raises(UserError, match="path_drop is for transformers"):
        sample_latents(Unet(UnetConfig()), ONE, {}, NOISE, TEXT, MASK)
    with pytest.raises(UserError, match="path_drop needs more than 4 blocks"):
        sample_latents(Dit(dataclasses.replace(SIZES, depth=4)), ONE, {}, NOISE, TEXT, MASK)
    with pytest.raises(UserError, match="path_drop is for one network that computes all of its blocks"):
        SampleConfig(steps=1, guidance=3.0, path_drop=True, boundary=0.5)
