"""Kernel distance against its double sum, and its mean over small samples against the laws' moments."""

from itertools import product

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.kernel_distance import kernel_distance


def moments(mean: float, deviation: float) -> np.ndarray:
    """E x, E x^2 and E x^3 of a normal law."""
    return np.array([mean, mean**2 + deviation**2, mean**3 + 3 * mean * deviation**2])


def test_the_distance_equals_its_double_sum():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), rng.normal(1, 2, size=(7, 3))
    kernel = lambda a, b: (sum(a[i] * b[i] for i in range(3)) / 3 + 1) ** 3
    within = lambda z: np.mean([kernel(z[i], z[j]) for i, j in product(range(len(z)), repeat=2) if i != j])
    across = np.mean([kernel(a, b) for a, b in product(x, y)])
    assert kernel_distance(x, y) == pytest.approx(within(x) + within(y) - 2 * across, rel=1e-12)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.5, 1.2)])
def test_fifty_clips_do_not_bias_it(mean, deviation):
    # For one feature the kernel is 1 + 3ab + 3a^2b^2 + a^3b^3, so the distance is one of moments.
    truth = np.array([3, 3, 1]) @ np.square(moments(mean, deviation) - moments(0, 1))
    rng = np.random.default_rng(0)
    draw = lambda: kernel_distance(rng.normal(size=(50, 1)), rng.normal(mean, deviation, size=(50, 1)))
    values = np.array([draw() for _ in range(2000)])
    assert abs(values.mean() - truth) < 3 * values.std() / np.sqrt(len(values))
    assert values.std() / np.sqrt(len(values)) < 0.5  # the draws are enough for that to mean something


def test_single_precision_features_are_summed_in_double():
    rng = np.random.default_rng(0)
    x, y = (rng.normal(10, 1, (40, 16)).astype(np.float32) for _ in range(2))
    assert kernel_distance(x, y) == kernel_distance(x.astype(np.float64), y.astype(np.float64))


def test_too_few_clips_are_refused():
    with pytest.raises(UserError, match="at least 2 clips; the smallest has 1"):
        kernel_distance(np.zeros((1, 3)), np.zeros((9, 3)))
