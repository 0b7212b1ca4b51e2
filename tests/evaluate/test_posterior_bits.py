"""Bits of latents: what a Gaussian channel of known noise carries, at any scale of the latents."""

import numpy as np
import pytest

from mobile_video_jax.evaluate.posterior_bits import bits_a_value


def test_bits_are_those_of_a_channel_of_the_same_signal_and_noise():
    """A third of the signal in noise carries log2(1 + 3) / 2 = 1 bit a value."""
    signal = np.stack([np.tile([-1.0, 1.0], 8), np.zeros(16)], axis=-1)  # of variance 1, and none
    noise = np.full_like(signal, np.log(1 / 3))
    assert bits_a_value(signal, noise) == pytest.approx((1 + 0) / 2)
    assert bits_a_value(50 * signal + 7, noise + 2 * np.log(50)) == pytest.approx(0.5)
