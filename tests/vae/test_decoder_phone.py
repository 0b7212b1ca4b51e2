"""The estimate of a decoder on the phone, called frame by frame or once."""

import pytest

from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.vae.decoder_phone import DecoderCost, decoder_cost
from mobile_video_jax.vae.model import Vae
from tests import tiny


def cost(clip: str, **how: bool) -> DecoderCost:
    return decoder_cost(Vae(tiny.VAE), Compression.parse(tiny.COMPRESSION), ClipShape.parse(clip), **how)


def test_each_latent_frame_takes_the_same_time_and_no_more_memory():
    short, long, longer = (cost(clip) for clip in ("5x32x32", "13x32x32", "21x32x32"))
    assert longer.seconds - long.seconds == pytest.approx(long.seconds - short.seconds) and short.seconds > 0
    assert short.bytes == long.bytes == longer.bytes
    assert cost("21x32x32", streams=False).bytes > longer.bytes
