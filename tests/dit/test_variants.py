"""What every variant of configs/dit.py shares, at sizes that a test can run."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest

from configs.dit import MODELS
from mobile_video_jax.dit.model import Dit
from tests.dit.test_model import inputs

SMALL = {"width": 24, "depth": 1, "heads": 2, "head_dim": 12, "ffn": 32, "blocks": (), "time_features": 16}


@partial(jax.jit, static_argnums=0)
def fresh_velocity(model: Dit, *x: jax.Array) -> jax.Array:
    return model.apply(model.init(jax.random.key(0), *x), *x)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("variant", MODELS)
def test_a_fresh_model_predicts_exactly_zero(variant, scan):
    published = MODELS[variant]
    kinds = tuple(dict.fromkeys(published.layout))  # one block of each kind and resolution, and one that a skip ends at
    kinds += kinds[-1:] if published.skips else ()
    skips = ((len(kinds) - 2, len(kinds) - 1),) if published.skips else ()
    sizes = {**SMALL, "layout": kinds, "depth": len(kinds) or 1, "skips": skips, "kv_heads": min(published.kv_heads, 1)}
    model = Dit(dataclasses.replace(published, **sizes, scan=scan))
    np.testing.assert_array_equal(fresh_velocity(model, *inputs()), np.zeros(inputs()[0].shape))
