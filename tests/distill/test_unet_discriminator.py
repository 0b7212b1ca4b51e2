"""The discriminator of a U-Net: its way down, what heads see of other frames, and what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.distill.config import DiscriminatorConfig
from mobile_video_jax.distill.unet_discriminator import make_unet_discriminator
from mobile_video_jax.unet.block import Site
from mobile_video_jax.unet.config import UnetConfig
from mobile_video_jax.unet.model import Unet
from mobile_video_jax.unet.temporal import TemporalLayers
from tests.nets import normal, params_like, randomly

# The first level has no transformer blocks, the second two places.
KINDS = ("conv1d", "none", "attention3d", *("none",) * 6)
TEACHER = UnetConfig(widths=(8, 16), residuals=(1, 2), blocks=(0, 1), head_dim=8, time_features=16, temporal=KINDS)
GRID = (3, 4, 4)
LATENTS = normal(0, 2, *GRID, 6)
CAPTIONS = (jnp.array([0.3, 0.8]), normal(1, 2, 5, 10), jnp.asarray(np.arange(5) < np.array([[3], [5]])))
# The first clip has one frame, the second all three.
MASK = jnp.asarray(np.broadcast_to(np.arange(3)[:, None, None] < np.array([1, 3])[:, None, None, None], (2, *GRID)))
DISCRIMINATOR = make_unet_discriminator(TEACHER, DiscriminatorConfig(pooling="frame"))


@pytest.fixture(scope="module")
def teacher() -> dict:
    return params_like(Unet(TEACHER), LATENTS, *CAPTIONS, scale=0.3)


@pytest.fixture(scope="module")
def heads(teacher) -> dict:
    features = jax.eval_shape(DISCRIMINATOR.features, teacher, LATENTS, *CAPTIONS)
    return randomly(
        jax.eval_shape(lambda x: DISCRIMINATOR.heads.init(jax.random.key(0), x, GRID)["params"], features), 0.3
    )


@jax.jit
def logits(heads: dict, teacher: dict, latents: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    features = DISCRIMINATOR.features(teacher, latents, *CAPTIONS, mask)
    return DISCRIMINATOR.logits(heads, features, latents.shape[1:4])


def changed_over_time(heads: dict) -> dict:
    """The heads with other layers over time."""
    change = lambda path, x: x + ("temporal_0" in jax.tree_util.keystr(path))
    return jax.tree_util.tree_map_with_path(change, heads)


def test_the_backbone_is_the_teachers_own_way_down(teacher):
    def own(params: dict) -> dict:
        kept = lambda module, _: isinstance(module, Site | TemporalLayers)
        _, state = Unet(TEACHER).apply(
            {"params": params}, LATENTS, *CAPTIONS, MASK, capture_intermediates=kept, mutable="intermediates"
        )
        return state["intermediates"]

    features = jax.jit(DISCRIMINATOR.features)(teacher, LATENTS, *CAPTIONS, MASK)
    captured = jax.jit(own)(teacher)
    assert DISCRIMINATOR.taps == (1, 3) and [x.x.shape[2:] for x in features] == [(4, 4, 8), (2, 2, 16)]
    for (x, _), name in zip(features, ("temporal_down_0_0", "temporal_down_1_1"), strict=True):
        np.testing.assert_allclose(x, captured[name]["__call__"][0], atol=1e-5)


def test_images_skip_the_layers_over_time_of_heads_and_clips_do_not(heads, teacher):
    others = changed_over_time(heads)
    image = LATENTS[:, :1]
    np.testing.assert_array_equal(logits(heads, teacher, image), logits(others, teacher, image))
    before, after = (logits(each, teacher, LATENTS, MASK).reshape(2, 2, 3) for each in (heads, others))
    np.testing.assert_array_equal(before[0, :, 0], after[0, :, 0])
    assert np.abs(before - after)[1].min() > 1e-4


def test_logits_ignore_padding_and_frames_see_each_other(heads, teacher):
    out = logits(heads, teacher, LATENTS, MASK)
    mask = DISCRIMINATOR.logit_mask(MASK, GRID)
    np.testing.assert_array_equal(mask, [[True, False, False] * 2, [True] * 6])
    padded = logits(heads, teacher, jnp.where(MASK[..., None], LATENTS, 9.0), MASK)
    np.testing.assert_allclose(padded[mask], out[mask], atol=1e-4)
    other = logits(heads, teacher, LATENTS.at[:, 2].add(1.0), MASK)
    assert np.abs(other - out)[1, [0, 3]].min() > 1e-4
    np.testing.assert_allclose(other[0, [0, 3]], out[0, [0, 3]], atol=1e-5)


def test_convolutional_heads_have_no_attention(teacher):
    discriminator = make_unet_discriminator(TEACHER, DiscriminatorConfig("conv", taps=(2,), head_blocks=2))
    features = jax.eval_shape(discriminator.features, teacher, LATENTS, *CAPTIONS)
    params = jax.eval_shape(lambda x: discriminator.heads.init(jax.random.key(0), x, GRID)["params"], features)
    assert set(params) == {"tap_0", "classifier_0"} and set(params["tap_0"]["block_1"]) == {"residual"}
    assert set(params["tap_0"]["temporal_1"]["layer_0"]) == {"norm", "kernel", "pointwise"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"taps": (1, 4)}, "a U-Net of 3 places on its way down has no place 4: use taps from 1 to 3"),
        ({"head_start": "teacher"}, "heads of a U-Net use head_start=fresh"),
        ({"trunk_blocks": 2}, "name places of the U-Net with taps"),
        ({"pooling": "token"}, "use pooling=clip or pooling=frame"),
    ],
)
def test_settings_of_a_transformers_discriminator_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        make_unet_discriminator(TEACHER, DiscriminatorConfig(**settings))
