"""Area under the ROC curve: the probability that a positive example scores above a negative one."""

import numpy as np
from jaxtyping import Float


def roc_auc(positive: Float[np.ndarray, "p"], negative: Float[np.ndarray, "n"]) -> float:
    """The share of pairs in order, ties as halves (the Mann-Whitney statistic over p n); 0.5 is chance."""
    differences = positive[:, None] - negative[None]
    return float(np.mean((differences > 0) + 0.5 * (differences == 0)))
