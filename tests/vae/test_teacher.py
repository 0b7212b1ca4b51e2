"""Learning from another decoder: its features by resolution, and their errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.vae.losses.teacher import _order, decode_with_features, feature_error, pairs
from mobile_video_jax.vae.model import Vae
from tests import tiny
from tests.nets import normal, params_like


def test_features_are_the_last_blocks_of_each_resolution():
    vae, latents = Vae(tiny.VAE), normal(0, 1, 2, 2, 2, 6)
    params = params_like(vae, jnp.zeros((1, 1, 8, 8, 3)), scale=0.3)
    video, features = jax.jit(lambda p: decode_with_features(vae, p, latents))(params["decoder"])
    np.testing.assert_array_equal(video, jax.jit(lambda p: vae.apply({"params": p}, latents, method="decode"))(params))
    assert {size: x.shape[-1] for size, x in features.items()} == {(2, 2, 2): 12, (3, 4, 4): 8, (5, 8, 8): 8}
    names = ["level_0_block_10", "mid_block_1", "up_1_block_0", "level_0_block_2", "level_2_block_0", "up_0_block_3"]
    ordered = sorted(names, key=_order)
    assert [name for name in ordered if "level" in name] == ["level_2_block_0", "level_0_block_2", "level_0_block_10"]
    assert [name for name in ordered if "level" not in name] == ["mid_block_1", "up_0_block_3", "up_1_block_0"]


def test_the_error_is_a_share_of_the_teachers_mean_square():
    teacher = normal(0, 1, 1, 2, 2, 3)
    both = pairs({(1, 2, 2): teacher}, {(1, 2, 2): 7 * teacher})
    assert feature_error([7 * teacher], both) == 0
    assert float(feature_error([jnp.zeros_like(teacher)], both)) == pytest.approx(1, rel=1e-4)
    with pytest.raises(UserError, match="no resolution in common"):
        pairs({(1, 2, 2): teacher}, {(1, 4, 4): teacher})
