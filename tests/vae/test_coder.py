"""Coding a clip chunk by chunk equals coding it whole; tile by tile comes near."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.module import apply, init
from mobile_video_jax.vae.coder import ClipCoder
from mobile_video_jax.vae.config import VaeConfig
from mobile_video_jax.vae.model import Vae
from mobile_video_jax.vae.pixels import to_signed
from tests.nets import params_like

CONFIG = VaeConfig("t4_s8_c4", (8, 8, 12), (1, 1, 1), (8, 8, 12), (1, 1, 1), head_dim=6, omni=True)
VAE = Vae(CONFIG)


def clip(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


@pytest.fixture(scope="module")
def params():
    return params_like(VAE, jnp.zeros((1, 5, 16, 16, 3)))


@pytest.fixture(scope="module")
def whole(params):
    """A clip, its latents' means, its first frame's features, and the clips decoded without and with them."""
    video = clip(2, 17, 16, 16)

    @jax.jit
    def code(params, video):
        posterior, image = apply(VAE, params, to_signed(video), method="encode_with_image")
        plain = apply(VAE, params, posterior.mean, method="decode")
        return posterior.mean, image, plain, apply(VAE, params, posterior.mean, image, method="decode")

    return video, *jax.device_get(code(params, video))


def close(streamed, expected):
    np.testing.assert_allclose(streamed, expected, atol=1e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize("starts", [(1, 5, 9, 13), (9,), (5, 13)])
def test_chunk_by_chunk_equals_the_whole(params, whole, starts):
    video, latents, image, plain, conditioned = whole
    coder = ClipCoder(VAE, params)
    latent_chunks = np.split(latents, [(frame - 1) // 4 + 1 for frame in starts], axis=1)
    close(np.concatenate(list(coder.encode(np.split(video, starts, axis=1))), axis=1), latents)
    close(np.concatenate(list(coder.decode(latent_chunks)), axis=1), plain)
    close(np.concatenate(list(coder.decode(latent_chunks, image)), axis=1), conditioned)


def test_the_state_of_a_stream_does_not_grow(params):
    """Frame 40 of a stream costs what frame 2 does: the state has one size and no program is compiled anew."""
    latents = np.zeros((1, 1, 2, 2, 4), np.float32)
    run = jax.jit(lambda state, z: VAE.apply({"params": params, **state}, z, method="decode", mutable=["stream"])[1])
    states = [{}]
    for _ in range(5):
        states.append(run(states[-1], latents))
    shapes = [jax.tree.map(jnp.shape, state) for state in states[1:]]
    assert all(shape == shapes[0] for shape in shapes)
    assert run._cache_size() == 2  # a clip's first chunk, and every later one


def test_a_tile_as_large_as_the_frame_changes_nothing(params, whole):
    _, latents, image, _, conditioned = whole
    tiled = ClipCoder(VAE, params, tile=16, overlap=8).decode([latents], image)
    close(np.concatenate(list(tiled), axis=1), conditioned)


def test_tiles_come_near_the_whole_frame_and_overlap_brings_them_nearer():
    rows, columns = np.meshgrid(np.arange(64), np.arange(48), indexing="ij")
    video = np.broadcast_to((127 + 60 * np.sin(rows / 9 + columns / 7))[..., None], (1, 5, 64, 48, 3)).astype(np.uint8)
    fresh = nn.unbox(jax.jit(partial(init, VAE))(jax.random.key(0), jnp.zeros((1, 5, 16, 16, 3))))
    rng = np.random.default_rng(1)
    fresh = jax.tree.map(lambda x: np.asarray(x) + rng.normal(0, 0.02, x.shape).astype(np.float32), fresh)
    latents = next(ClipCoder(VAE, fresh).encode([video]))
    expected = next(ClipCoder(VAE, fresh).decode([latents]))
    errors = [
        np.abs(next(ClipCoder(VAE, fresh, tile=32, overlap=overlap).decode([latents])) - expected).mean()
        for overlap in (0, 16)
    ]
    assert 0 < errors[1] < errors[0] and errors[1] < 0.25 * expected.std()
    tiled = next(ClipCoder(VAE, fresh, tile=32, overlap=16).encode([video]))
    assert np.abs(tiled - latents).mean() < 0.25 * latents.std()


def test_a_chunk_of_wrong_length_is_refused(params):
    with pytest.raises(UserError, match="chunk 1 of a clip has 5 frames: use 4"):
        list(ClipCoder(VAE, params).encode([clip(1, 5, 16, 16), clip(1, 5, 16, 16)]))


def test_a_tile_that_does_not_fit_the_stride_is_refused(params):
    with pytest.raises(UserError, match="multiples of the spatial stride 8"):
        ClipCoder(VAE, params, tile=20)
    with pytest.raises(UserError, match="at most half a tile"):
        ClipCoder(VAE, params, tile=16, overlap=16)
