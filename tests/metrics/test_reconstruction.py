"""PSNR and flicker against their formulas and SSIM against scikit-image."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import structural_similarity

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.reconstruction import flicker, psnr, ssim


def clips(seed: int, noise: float, shape: tuple[int, ...] = (2, 3, 40, 56, 3)) -> tuple[np.ndarray, np.ndarray]:
    """Smooth clips with flat areas, and the same with noise."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (0,) * (len(shape) - 3) + (4, 4, 0))
    reference = 128 + 2000 * np.clip(smooth, -0.03, 0.03)
    noisy = reference + noise * rng.normal(size=shape)
    return reference.clip(0, 255).astype(np.uint8), noisy.clip(0, 255).astype(np.uint8)


def peer(reference: np.ndarray, video: np.ndarray) -> float:
    options = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1, data_range=255)
    return float(np.mean([structural_similarity(a, b, **options) for a, b in zip(reference, video, strict=True)]))


@pytest.mark.parametrize("noise", [1.0, 10.0, 80.0])
def test_ssim_equals_scikit_image(noise):
    reference, video = clips(0, noise)
    expected = [peer(a, b) for a, b in zip(reference, video, strict=True)]
    np.testing.assert_allclose(ssim(reference, video), expected, atol=1e-6)


def test_ssim_of_the_smallest_frame_equals_scikit_image():
    reference, video = clips(1, 20.0, (2, 11, 11, 3))
    np.testing.assert_allclose(ssim(reference, video), peer(reference, video), atol=1e-6)


def test_psnr_equals_its_formula():
    reference, video = clips(2, 10.0)
    error = ((reference.astype(float) - video.astype(float)) ** 2).reshape(2, -1).mean(axis=1)
    np.testing.assert_allclose(psnr(reference, video), 20 * np.log10(255) - 10 * np.log10(error), rtol=1e-9)


def test_psnr_of_one_grey_level_is_48_decibels():
    black = np.zeros((2, 4, 4, 3), np.uint8)
    assert float(psnr(black, black + np.uint8(1))) == pytest.approx(48.1308, abs=1e-4)
    assert float(psnr(black, black + np.uint8(255))) == 0.0


def test_identical_clips_have_infinite_psnr_and_ssim_one():
    reference, _ = clips(3, 0.0)
    assert np.all(np.isposinf(psnr(reference, reference)))
    np.testing.assert_allclose(ssim(reference, reference), 1.0)


def test_flicker_equals_its_formula():
    x, y = (video.astype(int) for video in clips(5, 20.0, (3, 6, 5, 3)))
    errors = [
        abs((y[t + 1, r, c, k] - y[t, r, c, k]) - (x[t + 1, r, c, k] - x[t, r, c, k]))
        for t, r, c, k in np.ndindex(2, 6, 5, 3)
    ]
    assert sum(errors) > 0
    assert float(flicker(x.astype(np.uint8), y.astype(np.uint8))) == pytest.approx(sum(errors) / len(errors))


def test_flicker_counts_changing_errors_only():
    reference = np.zeros((3, 4, 4, 3), np.uint8)
    reference[1] = 50
    assert float(flicker(reference, reference + np.uint8(7))) == 0.0
    alternating = reference + np.array([0, 6, 0], np.uint8)[:, None, None, None]
    assert float(flicker(reference, alternating)) == 6.0


def test_flicker_refuses_clips_of_one_frame():
    clip = np.zeros((2, 1, 16, 16, 3), np.uint8)
    with pytest.raises(UserError, match="at least 2 frames"):
        flicker(clip, clip)


def test_a_batch_gives_the_values_of_its_clips():
    reference, video = clips(4, 15.0)
    for measure in (psnr, ssim, flicker):
        alone = [measure(a, b) for a, b in zip(reference, video, strict=True)]
        assert alone[0].shape == ()
        np.testing.assert_array_equal(measure(reference, video), np.stack(alone))


@pytest.mark.parametrize("measure", [psnr, ssim, flicker])
def test_bad_clips_are_refused(measure):
    clip = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(UserError, match="different shapes"):
        measure(clip, clip[:1])
    with pytest.raises(UserError, match="uint8"):
        measure(clip, clip / 255)
    with pytest.raises(UserError, match="t h w 3"):
        measure(clip[0], clip[0])


def test_ssim_refuses_frames_smaller_than_its_window():
    clip = np.zeros((2, 16, 10, 3), np.uint8)
    with pytest.raises(UserError, match="at least 11"):
        ssim(clip, clip)
