"""Coding a clip chunk by chunk equals coding it whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.nn.stream import STREAM
from mobile_video_jax.vae.config import VaeConfig
from mobile_video_jax.vae.model import Vae
from tests.vae.test_model import trained_looking

CONFIG = VaeConfig("t4_s8_c4", (8, 8, 12), (1, 1, 1), (8, 8, 12), (1, 1, 1), head_dim=6, omni=True)


def chunks(vae, params, parts, *args, method):
    state, outs = {}, []
    for part in parts:
        out, state = vae.apply({**params, **state}, part, *args, method=method, mutable=[STREAM])
        outs.append(out.mean if method == "encode" else out)
    return jnp.concatenate(outs, axis=1)


@pytest.mark.parametrize("cuts", [(1, 5, 9, 13), (9,), (5, 13)])
def test_streaming_equals_the_whole(cuts):
    vae, video = Vae(CONFIG), jax.random.normal(jax.random.key(0), (2, 17, 16, 16, 3))
    params = trained_looking(vae, video)
    posterior, image = vae.apply(params, video, method="encode_with_image")
    streamed = chunks(vae, params, jnp.split(video, cuts, axis=1), method="encode")
    np.testing.assert_allclose(streamed, posterior.mean, atol=1e-5 * float(jnp.abs(posterior.mean).max()))
    for condition in ((), (image,)):
        whole = vae.apply(params, posterior.mean, *condition, method="decode")
        parts = jnp.split(posterior.mean, [(cut - 1) // 4 + 1 for cut in cuts], axis=1)
        streamed = chunks(vae, params, parts, *condition, method="decode")
        np.testing.assert_allclose(streamed, whole, atol=1e-5 * float(jnp.abs(whole).max()))
