"""The VAE: shapes, causality, posterior, latent statistics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.module import apply
from mobile_video_jax.vae.config import VaeConfig
from mobile_video_jax.vae.latent_stats import LatentStats
from mobile_video_jax.vae.model import Vae
from mobile_video_jax.vae.pixels import to_bytes, to_signed
from mobile_video_jax.vae.posterior import Posterior
from tests.nets import normal, params_like, run

SMALL = {"encoder_widths": (8, 8, 12), "decoder_widths": (8, 8, 12), "head_dim": 6}


@pytest.mark.parametrize(
    ("compression", "levels", "grid"),
    [("t4_s8_c4", 3, (3, 2, 4)), ("t4_s16_c4", 3, (3, 1, 2)), ("t2_s8_c3", 3, (5, 2, 4)), ("t1_s4_c3", 2, (9, 4, 8))],
)
def test_latent_grid_and_reconstruction_shape(compression, levels, grid):
    config = VaeConfig(compression, *((8,) * levels, (1,) * levels) * 2, head_dim=8)
    vae, video = Vae(config), jax.ShapeDtypeStruct((2, 9, 16, 32, 3), jnp.float32)
    params = params_like(vae, video)
    latents = jax.eval_shape(lambda *args: apply(vae, *args, method="encode").mean, params, video)
    assert latents.shape == (2, *grid, config.strides.channels)
    assert jax.eval_shape(partial(apply, vae), params, video).shape == video.shape


def test_the_first_frame_alone_is_a_clip_and_codes_as_it_does_within_one():
    vae, video = Vae(VaeConfig(**SMALL)), normal(2, 1, 9, 16, 16, 3)
    params = params_like(vae, video)
    code = jax.jit(lambda x: jax.tree.leaves(apply(vae, params, x, method="encode_with_image")))
    decode = jax.jit(lambda z: apply(vae, params, z, method="decode"))
    (whole, _, *features), (alone, _, *features_alone) = code(video), code(video[:, :1])
    np.testing.assert_allclose(alone, whole[:, :1], atol=1e-5)
    np.testing.assert_allclose(decode(alone), decode(whole)[:, :1], atol=1e-5)
    for ours, theirs in zip(features_alone, features, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_encoder_and_decoder_are_causal():
    vae, video = Vae(VaeConfig(**SMALL)), normal(2, 1, 9, 16, 16, 3)
    params = params_like(vae, video)
    latents = jax.jit(lambda x: apply(vae, params, x, method="encode").mean)(video)
    encode = lambda x: (apply(vae, params, x, method="encode").mean ** 2).sum(axis=(0, 2, 3, 4))
    decode = lambda z: (apply(vae, params, z, method="decode") ** 2).sum(axis=(0, 2, 3, 4))
    depends = np.abs(np.asarray(jax.jit(jax.jacrev(encode))(video))).sum(axis=(1, 3, 4, 5)) > 0
    # Latent frame j holds pixel frames 4j-3 .. 4j and sees everything before them, nothing after.
    np.testing.assert_array_equal(depends, [[s <= 4 * j for s in range(9)] for j in range(3)])
    depends = np.abs(np.asarray(jax.jit(jax.jacrev(decode))(latents))).sum(axis=(1, 3, 4, 5)) > 0
    np.testing.assert_array_equal(depends, [[j <= -(-t // 4) for j in range(3)] for t in range(9)])


def test_an_omni_decoder_without_an_image_is_the_plain_one():
    plain, omni = (Vae(VaeConfig(**SMALL, omni=omni)) for omni in (False, True))
    video = normal(2, 2, 5, 16, 16, 3)
    params = params_like(omni, video)
    posterior, image = run(omni, params, video, method="encode_with_image")
    bare = np.asarray(run(plain, params, posterior.mean, method="decode"))
    nothing = jax.tree.map(np.zeros_like, image)
    np.testing.assert_allclose(run(omni, params, posterior.mean, nothing, method="decode"), bare, atol=1e-5)
    half = tuple(level * np.array([1, 0], np.float32)[:, None, None, None, None] for level in image)
    mixed = np.asarray(run(omni, params, posterior.mean, half, method="decode"))
    np.testing.assert_allclose(mixed[1], bare[1], atol=1e-5)
    assert np.abs(mixed[0] - bare[0]).max() > 1e-3


def test_posterior_kl_equals_its_definition_by_sampling():
    posterior = Posterior(jnp.full((1, 1, 1, 1, 1), 0.7), jnp.full((1, 1, 1, 1, 1), np.log(0.25)))
    samples = np.asarray(jax.vmap(posterior.sample)(jax.random.split(jax.random.key(0), 200_000))).ravel()
    log_ratio = -0.5 * ((samples - 0.7) ** 2 / 0.25 + np.log(0.25)) + 0.5 * samples**2
    np.testing.assert_allclose(posterior.kl_to_normal(), log_ratio.mean(), rtol=0.02)


def test_latent_statistics_round_trip_and_refuse_a_dead_channel(tmp_path):
    latents = np.random.default_rng(0).normal((1.0, -2.0), (3.0, 0.5), (4, 2, 3, 3, 2)).astype(np.float32)
    stats = LatentStats.measure([latents[:2], latents[2:]])
    stats.save(tmp_path)
    normal = np.asarray(LatentStats.load(tmp_path).normalize(jnp.asarray(latents)))
    np.testing.assert_allclose(normal.mean(axis=(0, 1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(normal.std(axis=(0, 1, 2, 3)), 1, atol=1e-5)
    np.testing.assert_allclose(stats.denormalize(jnp.asarray(normal)), latents, atol=1e-5)
    with pytest.raises(UserError, match="constant"):
        LatentStats.measure([np.zeros((2, 1, 1, 1, 3))])


def test_levels_that_do_not_fit_the_compression_are_refused():
    with pytest.raises(UserError, match="takes 4 to 6 levels"):
        params_like(Vae(VaeConfig("t8_s32_c8")), jnp.zeros((1, 9, 32, 32, 3)))


def test_pixels_round_trip():
    pixels = jnp.arange(256, dtype=jnp.uint8).reshape(1, 1, 16, 16, 1).repeat(3, axis=-1)
    np.testing.assert_array_equal(to_bytes(to_signed(pixels)), pixels)
