"""The DCT curve against a direct sum, JPEG's table and signals whose spectrum is known."""

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.spectrum import dct_curve, high_frequency_share, standardised, zigzag

# ITU-T T.81, figure A.6: the place of every frequency in the zig-zag order.
JPEG = [
    [0, 1, 5, 6, 14, 15, 27, 28],
    [2, 4, 7, 13, 16, 26, 29, 42],
    [3, 8, 12, 17, 25, 30, 41, 43],
    [9, 11, 18, 24, 31, 40, 44, 53],
    [10, 19, 23, 32, 39, 45, 52, 54],
    [20, 22, 33, 38, 46, 51, 55, 60],
    [21, 34, 37, 47, 50, 56, 59, 61],
    [35, 36, 48, 49, 57, 58, 62, 63],
]


def noise(*shape: int, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(0).normal(mean, 1.0, shape)


def direct(tile: np.ndarray) -> np.ndarray:
    """|D_uv| of a square tile by the definition of the orthonormal DCT-II."""
    n = len(tile)
    cosine = lambda x, u: np.sqrt((1 if u == 0 else 2) / n) * np.cos(np.pi * (2 * x + 1) * u / (2 * n))
    sums = [sum(tile[x, y] * cosine(x, u) * cosine(y, v) for x, y in np.ndindex(n, n)) for u, v in np.ndindex(n, n)]
    return np.abs(sums).reshape(n, n)


def test_zigzag_is_that_of_jpeg():
    order = zigzag(8)
    assert order.shape == (64, 2)
    assert [JPEG[row][column] for row, column in order] == list(range(64))


@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_curve_equals_the_direct_sum(block):
    values = noise(2, 2 * block, block, 3, mean=0.5)
    tiles = [values[i, r : r + block, :, k] for i in range(2) for r in (0, block) for k in range(3)]
    amplitude = np.mean([direct(tile) for tile in tiles], axis=0)
    expected = [amplitude[u, v] / amplitude[0, 0] for u, v in zigzag(block)]
    np.testing.assert_allclose(dct_curve(values, block), expected, rtol=1e-10)


def test_white_noise_is_flat():
    curve = dct_curve(noise(4, 128, 128, 16).astype(np.float32))
    np.testing.assert_allclose(curve, 1, atol=0.04)
    assert high_frequency_share(curve) == pytest.approx(32 / 63, abs=0.005)


def test_a_constant_has_no_frequencies():
    curve = dct_curve(np.full((2, 3, 16, 24, 2), -3.0))
    np.testing.assert_allclose(curve, np.eye(1, 64)[0], atol=1e-12)


def test_a_ramp_falls():
    ramp = np.broadcast_to(np.linspace(1, 2, 8)[:, None, None], (8, 8, 1))
    curve = dct_curve(ramp)
    odd = [curve[JPEG[row][0]] for row in (0, 1, 3, 5, 7)]  # the even frequencies of an odd function are zero
    assert np.all(np.diff(odd) < 0)
    assert high_frequency_share(curve) < 0.1


def test_the_rest_of_a_frame_stays_out():
    values = noise(2, 19, 9, 4)
    np.testing.assert_array_equal(dct_curve(values), dct_curve(values[:, :16, :8]))


def test_leading_axes_and_channels_count_alike():
    values = noise(2, 3, 16, 16, 4)
    flat = values.transpose(0, 1, 4, 2, 3).reshape(24, 16, 16, 1)
    np.testing.assert_allclose(dct_curve(values), dct_curve(flat))


@pytest.mark.parametrize("shape", [(7, 16, 1), (16, 7, 1)])
def test_frames_smaller_than_a_block_are_refused(shape):
    with pytest.raises(UserError, match="no block of 8x8"):
        dct_curve(noise(*shape))


def test_the_high_share_is_that_of_the_upper_half():
    assert high_frequency_share(np.array([1.0, 3.0, 2.0, 1.0])) == 0.5
    assert high_frequency_share(np.array([9.0, 1.0, 0.0, 0.0])) == 0.0


def test_a_curve_of_the_mean_alone_has_no_high_share():
    with pytest.raises(UserError, match="at least 2x2"):
        high_frequency_share(dct_curve(noise(4, 4, 1, mean=1.0), block=1))


def test_pixels_have_one_curve_with_and_without_an_offset():
    """A VAE whose latents are the pixels has no other spectrum than they have, in a dark world too."""
    rng = np.random.default_rng(3)
    pixels = np.clip(20 + 8 * rng.standard_normal((2, 3, 16, 16, 3)).cumsum(axis=2), 0, 255).astype(np.uint8)
    latents = (pixels / 127.5 - 1 - 0.3) / 0.2
    np.testing.assert_allclose(dct_curve(standardised(pixels)), dct_curve(standardised(latents)), rtol=1e-3)
    assert dct_curve(pixels.astype(np.float32))[1:].mean() < 0.5 * dct_curve(standardised(pixels))[1:].mean()
