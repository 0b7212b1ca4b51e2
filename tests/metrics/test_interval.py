"""The bootstrap interval covers the true mean as often as it says."""

import numpy as np
import pytest

from mobile_video_jax.metrics.interval import Score, bootstrap_mean


def normal(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(3.0, 2.0, n)


def test_the_interval_covers_the_mean():
    scores = [bootstrap_mean(normal(seed, 40), seed) for seed in range(300)]
    assert 0.90 <= np.mean([score.low <= 3.0 <= score.high for score in scores]) <= 0.98


def test_the_interval_of_many_values_is_that_of_the_normal_law():
    values = normal(0, 1000)
    score = bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(1000)
    assert (score.value, score.n) == (values.mean(), 1000)
    np.testing.assert_allclose([score.low, score.high], [score.value - half, score.value + half], atol=0.02)


def test_a_seed_gives_one_interval():
    values = normal(1, 20)
    assert bootstrap_mean(values, 5) == bootstrap_mean(values, 5) != bootstrap_mean(values, 6)


@pytest.mark.parametrize("value", [0.1, -7.3])
def test_one_value_is_its_own_interval(value):
    assert bootstrap_mean(np.array([value])) == Score(value, value, value, 1)
