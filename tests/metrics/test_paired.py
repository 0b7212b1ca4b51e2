"""The paired interval covers the true difference as often as it says, and pairing pays where scores go together."""

import numpy as np
import pytest
from scipy.stats import norm

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.interval import FEW, mean_score
from mobile_video_jax.metrics.paired import compare

SHARED, OWN, DIFFERENCE = 3.0, 0.5, 0.1  # deviation of the clips, of a run on a clip, and what sets the runs apart


def scores(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    clips = rng.normal(30, SHARED, n)
    return clips + rng.normal(0, OWN, n), clips + DIFFERENCE + rng.normal(0, OWN, n)


@pytest.mark.parametrize("n", [2, FEW, 40])
def test_the_interval_covers_the_difference(n):
    comparisons = [compare(*scores(seed, n), seed) for seed in range(300)]
    assert 0.90 <= np.mean([one.low <= DIFFERENCE <= one.high for one in comparisons]) <= 0.98


def test_many_clips_give_the_interval_and_share_of_the_normal_law():
    first, second = scores(0, 1000)
    compared = compare(first, second, resamples=10_000)
    deviation = (second - first).std() / np.sqrt(1000)
    assert (compared.difference, compared.n) == (pytest.approx((second - first).mean()), 1000)
    np.testing.assert_allclose(
        [compared.low, compared.high], compared.difference + deviation * norm.ppf([0.025, 0.975]), atol=3e-3
    )
    assert compared.above_zero == pytest.approx(norm.cdf(compared.difference / deviation), abs=0.01)


def test_pairing_beats_two_intervals_of_scores_that_go_together():
    first, second = scores(1, 200)
    paired, alone = compare(first, second), [mean_score(one) for one in (first, second)]
    unpaired = np.hypot(*(one.high - one.low for one in alone))
    # Of the variance 2 (shared^2 + own^2) only 2 own^2 is left.
    assert (paired.high - paired.low) / unpaired == pytest.approx(OWN / np.hypot(SHARED, OWN), rel=0.15)


def test_a_seed_gives_one_comparison():
    pair = scores(2, 40)
    assert compare(*pair, seed=5) == compare(*pair, seed=5) != compare(*pair, seed=6)


def test_the_order_of_the_runs_sets_the_sign():
    first, second = scores(3, 20)
    forth, back = compare(first, second), compare(second, first)
    assert (back.difference, back.low, back.high) == pytest.approx((-forth.difference, -forth.high, -forth.low))
    assert back.above_zero == pytest.approx(1 - forth.above_zero)


def test_few_pairs_are_never_said_to_differ():
    first, second = scores(5, FEW)
    assert not compare(first[1:], second[1:] + 100).differs
    assert compare(first, second + 100).differs


def test_equal_runs_are_never_above():
    first, _ = scores(4, 20)
    compared = compare(first, first)
    assert (compared.difference, compared.low, compared.high, compared.above_zero) == (0, 0, 0, 0)


def test_scores_that_cannot_be_paired_are_refused():
    with pytest.raises(UserError, match="3 and 2 scores"):
        compare(np.zeros(3), np.zeros(2))
    with pytest.raises(UserError, match="at least 2 clips; there are 1"):
        compare(np.zeros(1), np.zeros(1))
