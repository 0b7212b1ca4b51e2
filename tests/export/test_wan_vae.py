"""The phone's form of Wan's decoder is JAX's, latent frame by latent frame."""

from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from export.app.golden import decoder_tensors
from export.phone.wan_vae import PhoneDecoder
from export.pytorch.load import state_dict
from mobile_video_jax.vae.wan.config import WanVaeConfig
from mobile_video_jax.vae.wan.model import WanVae

SMALL = WanVaeConfig(channels=3, encoder_width=4, decoder_width=4, multipliers=(1, 2, 2, 2), depth=1)
RESIDUAL = WanVaeConfig(**{**vars(SMALL), "decoder_width": 6, "residual": True, "pixel_patch": 2})


@pytest.mark.parametrize(
    "config", [pytest.param(SMALL, id="2.1", marks=pytest.mark.slow), pytest.param(RESIDUAL, id="2.2")]
)
def test_the_phones_form_equals_the_decoder_chunk_by_chunk(config):
    vae, rng = WanVae(config), np.random.default_rng(0)
    z = rng.standard_normal((1, 3, 1, 2, config.strides.channels), np.float32)
    shapes = jax.eval_shape(lambda: vae.init(jax.random.key(0), jnp.asarray(z), method="decode")["params"])
    params = jax.tree.map(lambda x: (0.3 * rng.standard_normal(x.shape)).astype(np.float32), nn.unbox(shapes))
    weights = state_dict(params["decoder"])
    calls = list(decoder_tensors(vae, params, jnp.asarray(z)))
    assert [call["video"].shape[0] for call in calls] == [1, 4, 4]
    for call, starts in zip(calls, (True, False, False), strict=True):
        module = PhoneDecoder(config, weights, (1, 2), starts=starts)
        outputs = dict(zip(module.outputs, module(*(torch.tensor(call[name]) for name in module.inputs)), strict=True))
        assert {name: tuple(outputs[f"kept_{name}"].shape) for name in module.kept} == module.kept
        for name, x in outputs.items():
            np.testing.assert_allclose(x.numpy(), call[name], rtol=1e-4, atol=1e-4, err_msg=name)
    for before, after in pairwise(calls):
        assert all(
            np.array_equal(x, before[name.replace("past", "kept")]) for name, x in after.items() if "past" in name
        )
