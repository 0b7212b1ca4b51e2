"""Compact decoders: streaming, sizes, and what they do not take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import vae_decoder
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.models.vae import published_network
from mobile_video_jax.nn.stream import STREAM
from mobile_video_jax.stages.config import VaeTraining
from mobile_video_jax.vae.compact import CompactDecoder
from mobile_video_jax.vae.config import VaeConfig
from tests.nets import normal, params_like

SMALL = VaeConfig("t4_s8_c6", (8, 8, 8), (1, 1, 1), (8, 12, 16), (1, 1, 1), head_dim=8, compact_decoder=True)


def test_frame_by_frame_equals_the_whole_clip():
    decoder, latents = CompactDecoder(SMALL), normal(0, 1, 3, 2, 2, 6)
    params = params_like(decoder, latents, scale=0.3)
    whole = jax.jit(lambda x: decoder.apply({"params": params}, x))(latents)
    assert whole.shape == (1, 9, 16, 16, 3)
    step = jax.jit(lambda state, x: decoder.apply({"params": params, **state}, x, mutable=[STREAM]))
    state, frames = {}, []
    for i in range(3):
        video, state = step(state, latents[:, i : i + 1])
        frames.append(video)
    np.testing.assert_allclose(jnp.concatenate(frames, axis=1), whole, atol=1e-5)
    # Two levels carry two frames for each of a block's two convolutions.
    past = [leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(state) if path[-1].key == "past"]
    assert sorted(past) == [(1, 2, 2, 2, 16)] * 2 + [(1, 2, 4, 4, 12)] * 2


def test_a_variant_keeps_the_encoder_and_an_unknown_one_is_refused():
    config = from_mapping(VaeTraining, vae_decoder.get_config("tiny_t4_s8_c16_compact16").to_dict())
    assert config.freeze_encoder and config.model.compact_decoder and config.model.encoder_widths == (32, 64, 96)
    with pytest.raises(UserError, match="has no decoder 'compact9'"):
        vae_decoder.get_config("tiny_t4_s8_c16_compact9")
    with pytest.raises(UserError, match="takes no conditioning frame"):
        jax.eval_shape(lambda x: CompactDecoder(SMALL).init(jax.random.key(0), x, ()), normal(0, 1, 1, 2, 2, 6))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "low", "high"),
    [
        ("mobile_t4_s8_c16_compact", 1.31e6, 1.45e6),
        ("tiny_t4_s8_c16_compact4", 846_892 / 5, 846_892 / 4),
        ("tiny_t4_s8_c16_compact36", 846_892 / 45, 846_892 / 36),
    ],
)
def test_parameters_are_the_part_that_the_name_says(variant, low, high):
    model = from_mapping(VaeTraining, vae_decoder.get_config(variant).to_dict()).model
    latents = jax.ShapeDtypeStruct((1, 1, 2, 2, 16), jnp.float32)
    shapes = jax.eval_shape(lambda x: CompactDecoder(model).init(jax.random.key(0), x), latents)
    assert low < sum(leaf.size for leaf in jax.tree.leaves(shapes)) < high


@pytest.mark.parametrize(
    ("variant", "compression"),
    [("ltx_phone", "t8_s32_c128"), ("wan_phone", "t4_s16_c64"), ("ti2v_phone", "t4_s32_c192")],
)
def test_published_vaes_have_decoders_of_their_latents(variant, compression):
    model = from_mapping(VaeTraining, vae_decoder.get_config(variant).to_dict()).model
    assert str(model.strides) == str(published_network(model).config.strides) == compression
