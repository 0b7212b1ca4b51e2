"""The linear floor: exact where it must be, the best of its kind, and honest about too few clips."""

import numpy as np
import pytest

from mobile_video_jax.core.clip import Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.vae.linear_code import LinearCode

RNG = np.random.default_rng(0)


def smooth_clips(count: int) -> np.ndarray:
    """Clips [n 5 16 16 3] of slow waves, which few components hold."""
    rows, columns = np.mgrid[:16, :16] / 16
    waves = [np.sin(2 * np.pi * (rows * a + columns * b + c)) for a, b, c in RNG.uniform(0, 1, (count * 5, 3))]
    frames = 128 + 60 * np.repeat(np.reshape(waves, (count, 5, 16, 16, 1)), 3, axis=-1)
    return np.clip(frames + RNG.normal(0, 4, frames.shape), 0, 255).astype(np.uint8)


def test_as_many_channels_as_pixels_lose_nothing():
    clips = RNG.integers(0, 256, (200, 3, 4, 4, 3), np.uint8)
    code = LinearCode.fit(clips, Compression.parse("t2_s2_c24"))
    np.testing.assert_array_equal(code.reconstruct(clips[0]), clips[0])


def test_its_error_on_the_clips_it_was_fitted_to_is_that_of_the_dropped_components():
    clips, compression = smooth_clips(64), Compression.parse("t4_s8_c6")
    code = LinearCode.fit(clips, compression)
    later = clips[:, 1:].reshape(64, 4, 2, 8, 2, 8, 3).transpose(0, 2, 4, 1, 3, 5, 6).reshape(256, -1).astype(float)
    values = np.linalg.svd(later - later.mean(axis=0), compute_uv=False) ** 2
    coded = np.stack([code.later.project(later[i : i + 1].astype(np.float32))[0] for i in range(256)])
    assert np.square(coded - later).sum() == pytest.approx(values[6:].sum(), rel=1e-4)


def test_both_ways_to_the_components_agree():
    clips = smooth_clips(8)
    few = LinearCode.fit(clips, Compression.parse("t4_s4_c6")).later  # 128 blocks of 192 values
    many = LinearCode.fit(np.concatenate([clips] * 2), Compression.parse("t4_s4_c6")).later  # 256 blocks
    np.testing.assert_allclose(np.abs(np.linalg.svd(few.basis @ many.basis.T)[1]), 1, atol=1e-3)


def test_more_channels_are_never_worse_on_other_clips():
    clips, held_out = smooth_clips(100), smooth_clips(1)[0]
    errors = [
        np.square(LinearCode.fit(clips, Compression(4, 8, c)).reconstruct(held_out) - held_out.astype(float)).mean()
        for c in (2, 6, 24)
    ]
    assert errors == sorted(errors, reverse=True)


def test_too_few_clips_are_refused_and_images_have_a_code():
    with pytest.raises(UserError, match="1 blocks of pixels are too few for 6 components: give more clips"):
        LinearCode.fit(smooth_clips(1)[:, :1, :8, :8], Compression.parse("t4_s8_c6"))
    images = smooth_clips(20)[:, :1]
    assert LinearCode.fit(images, Compression.parse("t4_s8_c6")).reconstruct(images[0]).shape == (1, 16, 16, 3)
