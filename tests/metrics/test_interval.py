"""The interval covers the true mean as often as it says, with few values too."""

import numpy as np
import pytest

from mobile_video_jax.metrics.interval import FEW, RESAMPLED, Score, mean_score


def normal(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(3.0, 2.0, n)


@pytest.mark.parametrize("n", [2, 4, FEW, RESAMPLED - 1, 40])
def test_the_interval_covers_the_mean(n):
    scores = [mean_score(normal(seed, n), seed) for seed in range(300)]
    assert 0.90 <= np.mean([score.low <= 3.0 <= score.high for score in scores]) <= 0.98


def test_the_interval_of_many_values_is_that_of_the_normal_law():
    values = normal(0, 1000)
    score = mean_score(values)
    half = 1.96 * values.std() / np.sqrt(1000)
    assert (score.value, score.n) == (values.mean(), 1000)
    np.testing.assert_allclose([score.low, score.high], [score.value - half, score.value + half], atol=0.02)


def test_a_seed_gives_one_interval():
    values = normal(1, 40)
    assert mean_score(values, 5) == mean_score(values, 5) != mean_score(values, 6)


def test_one_value_has_no_interval():
    assert mean_score(np.array([-7.3])) == Score(-7.3, None, None, 1)
