"""The family of VAEs: every member's shapes, and the budgets that its sizes keep."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.nn.module import apply, init
from mobile_video_jax.vae.decoder_flops import decoder_flops_per_frame
from mobile_video_jax.vae.family import SIZES, family_member, with_smaller_decoder
from mobile_video_jax.vae.model import Vae

# diffusers' AutoencoderKLLTXVideo with its default config, counted by PyTorch's FLOP counter on a 512x512 frame.
LTX_PARAMETERS, LTX_FLOPS = 239e6, 231e9


def shapes(config) -> tuple:
    vae, video = Vae(config), jax.ShapeDtypeStruct((1, 17, 128, 64, 3), jnp.float32)
    params = nn.unbox(jax.eval_shape(lambda video: init(vae, jax.random.key(0), video), video))
    latents = jax.eval_shape(lambda p, v: apply(vae, p, v, method="encode").mean, params, video)
    return params, latents.shape, jax.eval_shape(lambda p, v: apply(vae, p, v), params, video).shape


@pytest.mark.parametrize("size", ["tiny", "full"])
@pytest.mark.parametrize("compression", [f"t{t}_s{s}_c6" for t in (4, 8) for s in (8, 16, 32)])
def test_every_legal_mix_has_the_shapes_its_name_says(size, compression):
    config = family_member(size, compression)
    _, latents, video = shapes(config)
    assert latents == (1, *ClipShape(17, 128, 64).latent(config.strides), 6) and video == (1, 17, 128, 64, 3)


@pytest.mark.parametrize(("size", "share"), [("full", 3), ("mobile", 8)])
def test_a_size_keeps_its_budget_beside_ltx_video(size, share):
    config = family_member(size, "t8_s32_c128")
    params, _, _ = shapes(config)
    assert decoder_flops_per_frame(config, ClipShape(49, 512, 512)) < LTX_FLOPS / share
    assert count_parameters(params["decoder"]) < LTX_PARAMETERS / 3
    if size == "mobile":
        assert count_parameters(params) < 45e6


def test_a_smaller_decoder_leaves_the_encoder_as_it_is():
    config = family_member("full", "t8_s32_c128")
    smaller = with_smaller_decoder(config, "mobile")
    (old, _, _), (new, _, _) = shapes(config), shapes(smaller)
    assert jax.tree.map(jnp.shape, old["encoder"]) == jax.tree.map(jnp.shape, new["encoder"])
    assert count_parameters(new["decoder"]) < count_parameters(old["decoder"]) / 2


def test_what_no_member_is_is_refused():
    with pytest.raises(UserError, match="VAE size 'huge' is unknown: choose one of tiny"):
        family_member("huge", "t4_s8_c4")
    with pytest.raises(UserError, match="beyond this family"):
        family_member("tiny", "t16_s32_c4")
    assert {"tiny", "mobile", "full"} <= set(SIZES)
