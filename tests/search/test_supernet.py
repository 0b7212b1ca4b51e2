"""The supernet is every network of its layouts, and the cost table gives the costs of whole networks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.models.config import DenoiserConfig
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.nn.module import apply
from mobile_video_jax.search.network_costs import network_costs, network_digest, phone_table
from mobile_video_jax.search.space import Choice, uniform_space
from mobile_video_jax.search.supernet import Supernet, layout_denoiser, layout_params, split_params
from mobile_video_jax.search.variants import pupil
from tests.nets import normal, randomly

SPACE = uniform_space(4, ["full", "ssa"], [1, 2])
MODEL = DitConfig(width=16, depth=4, heads=2, head_dim=8, ffn=16, time_features=8)
CONFIG = DenoiserConfig(clip="9x32x32", compression="t4_s8_c4", text_width=6, text_tokens=3, model=MODEL)
LAYOUT = tuple(Choice(*place) for place in (("ssa", 1), ("ssa", 2), ("full", 2), ("full", 1)))
INPUTS = (normal(0, 2, 3, 4, 4, 4), jnp.array([0.3, 0.8]), normal(1, 2, 3, 6), jnp.ones((2, 3), bool))


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return Denoiser(CONFIG)


@pytest.fixture(scope="module")
def params(denoiser):
    """Random parameters of a supernet."""
    variants = {
        str(choice): split_params(randomly(pupil(denoiser, choice).parameter_shapes, 0.3, seed))
        for seed, choice in enumerate(SPACE.choices)
    }
    rest = split_params(randomly(denoiser.parameter_shapes, 0.3))[0]
    return {"rest": rest, "variants": {name: blocks for name, (_, blocks) in variants.items()}}


@pytest.mark.slow
def test_the_supernet_is_the_network_of_the_layout(denoiser, params):
    numbers = jnp.array([SPACE.choices.index(choice) for choice in LAYOUT])
    net = Supernet(MODEL, choices=SPACE.choices, layout=numbers, variants=params["variants"])
    network = layout_denoiser(denoiser, LAYOUT)
    whole = layout_params(denoiser, LAYOUT, params["rest"], params["variants"], jax.random.key(1))
    velocity = apply(network.network, whole, *INPUTS)
    np.testing.assert_allclose(apply(net, params["rest"], *INPUTS), velocity, atol=2e-5)
    assert float(jnp.std(velocity)) > 0.1


@pytest.mark.slow
def test_the_phone_table_gives_the_costs_of_a_whole_network(denoiser):
    space = uniform_space(4, ["full", "lcha"], [1, 2])
    table = phone_table(denoiser, space)
    layout = tuple(Choice(*place) for place in (("lcha", 1), ("full", 2), ("lcha", 2), ("full", 1)))
    estimated, traced = table.of(layout), network_costs(denoiser, layout)
    assert estimated.flops == traced.flops and estimated.parameters == traced.parameters
    assert estimated.milliseconds == pytest.approx(traced.milliseconds, rel=1e-2)
    deeper = Denoiser(dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, depth=9)))
    wider = Denoiser(dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, width=32)))
    assert table.network == network_digest(deeper) != network_digest(wider)
