"""Latents that leave the VAE in patches: the same network, its values in other places."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import vae
from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.clip_ops import shuffle_down
from mobile_video_jax.nn.module import apply
from mobile_video_jax.vae.config import VaeLossConfig
from mobile_video_jax.vae.model import Vae
from tests.nets import params_like
from tests.vae.test_losses import VAE, objective, video  # noqa: F401  (a fixture)

PACKED = Vae(dataclasses.replace(VAE.config, compression=f"{VAE.config.compression}_p2"))


@pytest.fixture(scope="module")
def params(video) -> dict:  # noqa: F811
    return params_like(PACKED, video, scale=0.1)


def test_a_patch_is_one_token_of_all_its_channels():
    compression, clip = Compression.parse("t8_s8_c8_p4"), ClipShape.parse("49x384x512")
    assert clip.tokens(compression) == 1344 and compression.channels == 128 and compression.ratio == 192
    assert str(compression) == "t8_s8_c8_p4" and str(compression.of_vae) == "t8_s8_c8"
    with pytest.raises(UserError, match="the patch 3 is not a power of two"):
        Compression.parse("t8_s8_c8_p3")
    with pytest.raises(UserError, match="height 360 does not divide by the spatial stride 32"):
        ClipShape.parse("49x360x512").check(compression)


def test_a_size_has_the_same_network_with_and_without_patches():
    plain, packed = (vae.get_config(f"mobile_t8_s8_c8{patch}").model for patch in ("", "_p4"))
    assert plain.encoder_widths == packed.encoder_widths and packed.compression == "t8_s8_c8_p4"


def test_patches_move_latents_and_change_no_clip(params, video):  # noqa: F811
    """Encoded, packed and decoded: the plain network's latents, and its clip."""
    posteriors = [
        jax.jit(lambda v, x: apply(v, params, x, method="encode"), static_argnums=0)(v, video) for v in (VAE, PACKED)
    ]
    for plain, packed in zip(*(jax.tree.leaves(posterior) for posterior in posteriors), strict=True):
        np.testing.assert_array_equal(packed, shuffle_down(plain, 1, 2))
    clips = [
        jax.jit(lambda v, z: apply(v, params, z, method="decode"), static_argnums=0)(v, posterior.mean)
        for v, posterior in zip((VAE, PACKED), posteriors, strict=True)
    ]
    np.testing.assert_allclose(clips[1], clips[0], atol=1e-6)


def test_scale_equivariance_averages_neighbours_of_the_clip(params, video):  # noqa: F811
    """A term of the network, so it is the same with and without patches."""
    weights = VaeLossConfig(l1=0.0, l2=0.0, kl=0.0, scale_equivariance=1.0)
    # The noise that a posterior adds has another order where latents are packed.
    still = jax.tree.map(lambda leaf: leaf, params)
    still["encoder"]["moments"]["bias"] = (
        still["encoder"]["moments"]["bias"].at[-VAE.config.strides.channels :].set(-50)
    )
    terms = [jax.jit(objective(weights, network))(still, video, jax.random.key(0))[1] for network in (VAE, PACKED)]
    assert terms[1]["scale_equivariance"] == pytest.approx(float(terms[0]["scale_equivariance"]), rel=1e-3)
