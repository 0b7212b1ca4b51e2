"""The two optimizers of a VAE and its discriminator."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.train.config import OptimizerConfig, PlayersOptimizerConfig
from mobile_video_jax.train.optimizer import make_optimizer
from tests.nets import normal

OPPONENT = OptimizerConfig(learning_rate=3e-3, schedule="constant", warmup=0.0, beta1=0.5, clip_norm=1e-2)
MUON = OptimizerConfig(name="muon", learning_rate=2e-2, schedule="constant", warmup=0.0)
BOTH = PlayersOptimizerConfig(**dataclasses.asdict(MUON), opponent=OPPONENT)
PARAMS = {part: {"kernel": normal(seed, 3, 4, 4)} for seed, part in enumerate(("encoder", "decoder", "discriminator"))}


def second_update(config: OptimizerConfig, params: dict, scale: float = 1.0) -> dict:
    """The update of the second step, the first with a rate; `scale` is that of the discriminator's gradients."""
    optimizer = make_optimizer(config, 10)
    loud = {"discriminator": jax.tree.map(lambda x: scale * x, params.get("discriminator", {}))}
    grads = {part: loud.get(part, tree) for part, tree in params.items()}
    _, state = optimizer.update(grads, optimizer.init(params), params)
    return optimizer.update(grads, state, params)[0]


def test_each_player_is_updated_as_by_its_own_optimizer():
    """The discriminator by AdamW where the VAE has Muon, each with its own moments, rate and clipping."""
    together = second_update(BOTH, PARAMS)
    vae = {part: PARAMS[part] for part in ("encoder", "decoder")}
    expected = second_update(MUON, vae) | second_update(OPPONENT, {"discriminator": PARAMS["discriminator"]})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), together, expected)
    loud = second_update(BOTH, PARAMS, scale=1e4)  # does not take the VAE's share of the norm
    np.testing.assert_allclose(loud["decoder"]["kernel"], together["decoder"]["kernel"], atol=1e-6)
    assert np.abs(loud["decoder"]["kernel"]).max() > 1e-4


@pytest.mark.parametrize("parts", [("encoder", "decoder"), ("decoder", "projectors")])
def test_a_vae_without_a_discriminator_has_the_state_of_one_optimizer(parts):
    """So that checkpoints of runs before there were two still fit."""
    params = {part: {"kernel": jnp.ones((2, 2))} for part in parts}
    states = [make_optimizer(config, 10).init(params) for config in (BOTH, MUON)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    jax.tree.map(np.testing.assert_array_equal, *(second_update(config, params) for config in (BOTH, MUON)))
