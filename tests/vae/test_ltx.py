"""LTX-Video's VAE over long and large clips: in chunks where it is causal, in tiles, and read back from a run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.models.run import Run
from mobile_video_jax.stages.config import VaeTraining
from mobile_video_jax.train.checkpoint import save_model
from mobile_video_jax.train.run import write_run
from mobile_video_jax.vae.coder import ClipCoder
from mobile_video_jax.vae.latent_stats import LatentStats
from mobile_video_jax.vae.ltx.config import LtxVaeConfig
from mobile_video_jax.vae.ltx.model import LtxVae
from mobile_video_jax.vae.pixels import to_signed
from tests.nets import normal, params_like, run

# All three ways of shrinking time, and a decoder that is causal in it.
CAUSAL = LtxVaeConfig(
    channels=4,
    encoder_widths=(8, 8, 16, 16),
    encoder_depths=(0, 0, 1, 0),
    encoder_steps=("spatial", "temporal", "conv"),
    decoder_widths=(8, 8),
    decoder_depths=(0, 0, 1),
    up=(True, True),
    up_factor=(1, 2),
    up_residual=(False, True),
    noise=(False, False, True),
    decoder_causal=True,
)
WHOLE = dataclasses.replace(CAUSAL, decoder_causal=False, noise=(False,) * 3)


@pytest.fixture(scope="module")
def params():
    return params_like(LtxVae(CAUSAL), jnp.zeros((1, 1, 16, 16, 3)))


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=1e-5 * float(np.abs(expected).max()))


def test_chunk_by_chunk_equals_the_whole(params):
    video = np.random.default_rng(0).integers(0, 256, (2, 13, 16, 32, 3), np.uint8)
    latents = np.asarray(run(LtxVae(CAUSAL), params, to_signed(jnp.asarray(video)), method="encode").mean)
    decoded = run(LtxVae(CAUSAL), params, jnp.asarray(latents), method="decode")
    assert latents.shape == (2, 4, 1, 2, 4) and decoded.shape == video.shape
    coder = ClipCoder(LtxVae(CAUSAL), params)
    close(np.concatenate(list(coder.encode(np.split(video, (5, 9), axis=1))), axis=1), latents)
    close(np.concatenate(list(coder.decode(np.split(latents, (2, 3), axis=1))), axis=1), decoded)


def test_a_decoder_that_is_not_causal_refuses_a_second_chunk(params):
    chunks = ClipCoder(LtxVae(WHOLE), params).decode([np.zeros((1, 1, 1, 1, 4), np.float32)] * 2)
    assert next(chunks).shape == (1, 1, 16, 16, 3)
    with pytest.raises(UserError, match="in one piece: leave out --chunk"):
        next(chunks)


@pytest.mark.parametrize(("scale", "streams"), [(0.025, False), (0.0, True)])
def test_a_decoder_that_mixes_noise_over_frames_does_not_stream(scale, streams):
    assert dataclasses.replace(CAUSAL, timestep_conditioning=True, decode_noise_scale=scale).decoder_streams == streams


def test_tiles_equal_the_whole_frame_beyond_the_reach_of_their_borders(params):
    """The convolutions between a latent and its pixels reach 5.75 places: 4 in its own grid, the rest in finer ones."""
    latents = np.asarray(normal(0, 1, 2, 1, 16, 4))
    whole = np.asarray(run(LtxVae(WHOLE), params, jnp.asarray(latents), method="decode"))
    same, tiled = (next(ClipCoder(LtxVae(WHOLE), params, *sizes).decode([latents])) for sizes in ((256, 0), (128, 64)))
    close(same, whole)
    outer = [slice(0, 2 * 16), slice(14 * 16, None)]
    for columns in outer:
        close(tiled[..., columns, :], whole[..., columns, :])
    inner = np.abs(tiled - whole)[..., 2 * 16 : 14 * 16, :]
    assert 0 < inner.mean() < 0.5 * whole.std()


def test_a_run_is_read_by_its_family(params, tmp_path):
    described = {"compression": str(CAUSAL.strides), "clip": "5x16x16"}
    write_run(tmp_path, "vae", {**plain(VaeTraining(clip="5x16x16")), "model": plain(CAUSAL)}, described)
    save_model(tmp_path, 0, params)
    LatentStats((0.1,) * 4, (0.5,) * 4).save(tmp_path)
    bundle = Run.open(tmp_path).vae()
    assert bundle.vae == LtxVae(CAUSAL)
    jax.tree.map(np.testing.assert_array_equal, bundle.params, params)


def test_features_of_an_image_are_refused(params):
    with pytest.raises(UserError, match="decode without an image"):
        run(LtxVae(WHOLE), params, jnp.zeros((1, 1, 1, 1, 4)), (jnp.zeros((1, 1, 4, 4, 8)),), method="decode")
