"""Area under the ROC curve: pairs in order, ties as halves."""

import numpy as np

from mobile_video_jax.metrics.auc import roc_auc


def test_the_share_of_pairs_in_order():
    assert roc_auc(np.array([2.0, 1.0]), np.array([0.0, 1.0])) == (1 + 1 + 1 + 0.5) / 4
    assert roc_auc(np.zeros(3), np.zeros(2)) == 0.5 and roc_auc(np.zeros(2), np.ones(2)) == 0.0
