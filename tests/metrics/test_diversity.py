"""Diversity of samples whose distances follow from a formula."""

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.diversity import feature_diversity, pixel_diversity


def test_grey_samples_differ_by_their_levels():
    samples = np.stack([np.full((2, 4, 6, 3), level, np.uint8) for level in (0, 30, 60)])
    assert pixel_diversity(samples) == pytest.approx((30 + 60 + 30) / 3)


def test_pixels_differ_by_their_root_mean_square():
    samples = np.zeros((2, 2, 4, 6, 3), np.uint8)
    samples[1, 0] = 200  # half of all frames
    assert pixel_diversity(samples) == pytest.approx(200 / np.sqrt(2))


def test_equal_samples_have_no_diversity():
    sample = np.random.default_rng(0).integers(0, 256, (1, 2, 4, 6, 3), np.uint8)
    assert pixel_diversity(np.repeat(sample, 4, axis=0)) == 0
    assert feature_diversity(np.ones((4, 5))) == 0


def test_features_differ_by_their_euclidean_distance():
    triangle = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    assert feature_diversity(triangle) == pytest.approx((3 + 4 + 5) / 3)


def test_normal_features_differ_by_the_mean_of_a_chi_law():
    features = np.random.default_rng(0).normal(size=(1000, 3))
    assert feature_diversity(features) == pytest.approx(np.sqrt(2) * np.sqrt(8 / np.pi), rel=0.02)


@pytest.mark.parametrize(
    ("measure", "one"), [(pixel_diversity, np.zeros((1, 2, 4, 6, 3), np.uint8)), (feature_diversity, np.zeros((1, 5)))]
)
def test_one_sample_is_refused(measure, one):
    with pytest.raises(UserError, match="at least 2 clips; the smallest has 1"):
        measure(one)
