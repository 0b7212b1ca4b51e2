"""Which of I3D's outputs a video distance is of."""

import numpy as np
import pytest

from mobile_video_jax.metrics.video_distance import FEATURE_FVD, FVD, KVD, LOGITS, video_distances

RNG = np.random.default_rng(0)
SET, OTHER = (RNG.normal(size=(12, 1024 + LOGITS)).astype(np.float32) for _ in range(2))


@pytest.mark.parametrize(
    ("moved", "changed", "same"),
    [(slice(-LOGITS, None), {FVD, KVD}, {FEATURE_FVD}), (slice(1024), {FEATURE_FVD}, {FVD, KVD})],
)
def test_fvd_and_kvd_are_of_the_logits_and_the_third_of_the_features(moved, changed, same):
    before, far = video_distances(SET, OTHER, paired=False), OTHER.copy()
    far[:, moved] += 3
    after = video_distances(SET, far, paired=False)
    assert [metric.key for metric in before] == ["kvd", "fvd", "fvd_features"]
    assert all(after[metric].value > before[metric].value + 1 for metric in changed)
    assert all(after[metric].value == before[metric].value for metric in same)
