"""Fréchet distance against its formula with scipy's matrix root, and its bias for few clips."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.frechet import frechet_distance, frechet_infinity

SCALES = np.geomspace(1, 0.05, 8)  # of eight features, falling as those of networks do
SHIFT, GROWTH = 0.5 * SCALES, 1.2
TRUTH = np.square(SHIFT).sum() + np.square((GROWTH - 1) * SCALES).sum()  # of the laws that `draw` draws from


def draw(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 8)) * SCALES, SHIFT + GROWTH * SCALES * rng.normal(size=(n, 8))


def by_matrix_root(x: np.ndarray, y: np.ndarray) -> float:
    covariance_x, covariance_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = sqrtm(covariance_x @ covariance_y).real
    return np.square(x.mean(0) - y.mean(0)).sum() + np.trace(covariance_x + covariance_y - 2 * root)


@pytest.mark.parametrize("counts", [(40, 40), (30, 200), (500, 60)])
def test_the_distance_equals_its_formula(counts):
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(20, 20))
    x = rng.normal(size=(counts[0], 20)) @ mix
    y = rng.normal(size=(counts[1], 20)) @ mix.T + 1
    assert frechet_distance(x, y) == pytest.approx(by_matrix_root(x, y), rel=1e-9)


def test_fewer_clips_than_features():
    x = np.random.default_rng(0).normal(size=(5, 50)).astype(np.float32)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    # Of a scaled and shifted copy: |shift|^2, and the trace of the covariance times (scale - 1)^2.
    centred = x - x.mean(axis=0)
    expected = 50 * 0.25 + np.trace(np.cov(x, rowvar=False))
    assert frechet_distance(centred, 2 * centred + np.float32(0.5)) == pytest.approx(expected, rel=1e-5)


def test_few_clips_bias_the_distance_upward_but_not_its_value_at_infinity():
    draws = [draw(seed, 50) for seed in range(60)]
    plain, infinite = np.array([[frechet_distance(*pair), frechet_infinity(*pair)] for pair in draws]).T
    error = lambda values: (values.mean() - TRUTH) / (values.std() / np.sqrt(len(values)))
    assert error(plain) > 4
    assert abs(error(infinite)) < 2.5
    assert abs(infinite.mean() - TRUTH) < 0.2 * (plain.mean() - TRUTH)


def test_many_clips_give_the_true_distance():
    pair = draw(0, 20_000)
    assert frechet_distance(*pair) == pytest.approx(TRUTH, rel=0.05)
    assert frechet_infinity(*pair) == pytest.approx(TRUTH, rel=0.05)


def test_a_seed_gives_one_value():
    pair = draw(1, 20)
    assert frechet_infinity(*pair, seed=3) == frechet_infinity(*pair, seed=3) != frechet_infinity(*pair, seed=4)


def test_too_few_clips_are_refused():
    x, y = draw(2, 6)
    with pytest.raises(UserError, match="at least 2 clips; the smallest has 1"):
        frechet_distance(x, y[:1])
    with pytest.raises(UserError, match="at least 4 clips; the smallest has 3"):
        frechet_infinity(x[:3], y)
