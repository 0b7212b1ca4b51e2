"""The configs that VAEs are trained with."""

import dataclasses

import pytest

from configs import vae, vae_decoder
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.config import VaeTraining
from mobile_video_jax.vae.family import SIZES

REAL = [size for size in SIZES if size not in ("tiny", "micro")]


def training(variant: str, config=vae) -> VaeTraining:
    return from_mapping(VaeTraining, config.get_config(variant).to_dict())


@pytest.mark.parametrize("size", REAL)
def test_real_training_is_led_by_l1_and_sees_native_detail(size):
    first = training(f"{size}_t8_s32_c128")
    assert first.loss.l1 > 0 == first.loss.l2 and 0 < first.native_share < 1
    assert not first.model.omni  # nothing gives a decoder its first frame's features


@pytest.mark.parametrize("variant", ["tiny_t4_s8_c16", "mobile_t8_s32_c128", "mobile_t8_s16_c32_p2"])
def test_the_second_phase_is_the_first_ones_network_with_scale_equivariance(variant):
    first, second = training(variant), training(f"{variant}_phase2")
    assert second.model == first.model and second.steps == first.steps // 10
    assert second.loss == dataclasses.replace(first.loss, scale_equivariance=0.1, kl=0.0)


@pytest.mark.parametrize("variant", ["tiny_t4_s8_c16", "mobile_t8_s32_c128", "mobile_t8_s32_c128_phase2"])
def test_one_flag_adds_a_discriminator_with_an_optimizer_of_its_own(variant):
    plain = training(variant)
    adversarial = dataclasses.replace(plain, loss=dataclasses.replace(plain.loss, adversarial=0.2))
    assert adversarial.adversarial_start < adversarial.steps
    assert adversarial.optimizer.opponent.name == "adamw" and adversarial.optimizer.opponent.beta1 == 0.5


def test_a_smaller_decoder_is_trained_by_the_same_recipe():
    assert training("mobile_t8_s32_c128", vae_decoder).loss == training("mobile_t8_s32_c128").loss
    with pytest.raises(UserError, match="variant 'huge_t4_s8_c4_phase2' is unknown"):
        vae.get_config("huge_t4_s8_c4_phase2")
