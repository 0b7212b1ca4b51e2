"""Signs of collapse."""

import dataclasses
import re

import jax.numpy as jnp
import pytest

from mobile_video_jax.distill.collapse import CollapseConfig, collapse_metrics, collapse_reason
from tests.nets import normal

REAL = normal(0, 4, 3, 2, 2, 5)
OFF = CollapseConfig(0.0, 0.0, 0.0, 0.0)


def told(samples: jnp.ndarray, limits: CollapseConfig, **logits: float) -> str | None:
    measured = {f"eval_{name}": float(value) for name, value in collapse_metrics(samples, REAL).items()}
    return collapse_reason(measured | logits, limits)


def test_clips_like_the_real_ones_are_well():
    assert told(REAL, CollapseConfig(), real_logit=1.0, fake_logit=-1.0) is None
    measures = collapse_metrics(REAL, REAL)
    assert [round(float(measures[name]), 5) for name in ("motion", "spread", "colour")] == [1.0, 1.0, 0.0]
    image = REAL[:, :1]
    assert float(collapse_metrics(image, image)["motion"]) == 1.0


@pytest.mark.parametrize(
    ("limit", "samples", "message"),
    [
        ("motion", jnp.repeat(REAL[:, :1], 3, axis=1), "motion of samples is .* times that of real"),
        ("motion", 5 * REAL, "motion of samples is 5 times that of real clips"),
        ("spread", REAL / 3, "spread of samples is 0.333 times that of real clips"),
        ("colour", REAL + 2.0, "colour of samples is 4.* variances from that of real clips"),
    ],
)
def test_each_sign_is_named(limit, samples, message):
    only = dataclasses.replace(OFF, **{limit: getattr(CollapseConfig(), limit)})
    sign = told(samples, only)
    assert sign is not None and re.search(message, sign)
    assert told(samples, OFF) is None


def test_a_discriminator_that_has_won_is_a_sign():
    assert "by a margin of 25" in (told(REAL, CollapseConfig(), real_logit=15.0, fake_logit=-10.0) or "")


def test_padding_does_not_count():
    places = jnp.ones(REAL.shape[:4], bool).at[:, 2].set(False)
    garbage = REAL.at[:, 2].set(50.0)
    for name, value in collapse_metrics(garbage, garbage, places).items():
        assert float(value) == pytest.approx(0.0 if name == "colour" else 1.0, abs=1e-5)
    assert float(collapse_metrics(garbage, REAL, places)["motion"]) == pytest.approx(1.0)
