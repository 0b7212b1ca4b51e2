"""The collapse monitor."""

import dataclasses
import re

import jax.numpy as jnp
import pytest

from mobile_video_jax.distill.collapse import collapse_metrics, collapse_reason
from mobile_video_jax.distill.config import CollapseConfig
from tests.nets import normal

REAL = normal(0, 4, 3, 2, 2, 5)
OFF = CollapseConfig(0.0, 0.0, 0.0, 0.0)


def reason(samples: jnp.ndarray, limits: CollapseConfig, **logits: float) -> str | None:
    metrics = {f"eval_{name}": float(value) for name, value in collapse_metrics(samples, REAL).items()}
    return collapse_reason(metrics | logits, limits)


def test_real_clips_are_within_all_limits():
    assert reason(REAL, CollapseConfig(), real_logit=1.0, fake_logit=-1.0) is None
    metrics = collapse_metrics(REAL, REAL)
    assert [round(float(metrics[name]), 5) for name in ("motion", "spread", "colour")] == [1.0, 1.0, 0.0]
    image = REAL[:, :1]
    assert float(collapse_metrics(image, image)["motion"]) == 1.0


@pytest.mark.parametrize(
    ("limit", "samples", "message"),
    [
        ("motion", jnp.repeat(REAL[:, :1], 3, axis=1), "motion of samples is .* times that of the teacher's"),
        ("motion", 5 * REAL, "motion of samples is 5 times that of the teacher's"),
        ("spread", REAL / 3, "spread of samples is 0.333 times that of the teacher's"),
        ("colour", REAL + 2.0, "colour of samples is 4.* variances from that of the teacher's"),
    ],
)
def test_the_exceeded_limit_is_named(limit, samples, message):
    only = dataclasses.replace(OFF, **{limit: getattr(CollapseConfig(), limit)})
    assert re.search(message, reason(samples, only) or "")
    assert reason(samples, OFF) is None


def test_a_discriminator_with_too_large_a_margin_is_named():
    assert "by a margin of 25" in (reason(REAL, CollapseConfig(), real_logit=15.0, fake_logit=-10.0) or "")


def test_padding_is_ignored():
    mask = jnp.ones(REAL.shape[:4], bool).at[:, 2].set(False)
    garbage = REAL.at[:, 2].set(50.0)
    for name, value in collapse_metrics(garbage, garbage, mask).items():
        assert float(value) == pytest.approx(0.0 if name == "colour" else 1.0, abs=1e-5)
    assert float(collapse_metrics(garbage, REAL, mask)["motion"]) == pytest.approx(1.0)
