"""Palettes are near what k-means can do, and bits go where they help most."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from mobile_video_jax.weights.mixed_bits import Layer, assign, scaled_errors
from mobile_video_jax.weights.palette import palette, palettized

NUMBERS = np.random.default_rng(0).standard_normal((40, 60)).astype(np.float32)
# A quarter of the error for each bit, as of fine palettes: 2 bits are 1/16.
FALL = (1, 1 / 16, 1 / 256, 0)


def layer(name: str, size: int, error: float) -> Layer:
    return Layer(name, size, [error * factor for factor in FALL])


@pytest.mark.parametrize(("bits", "scale"), [(4, 1.02), (6, 1.05), (8, 1.2)])
def test_a_palette_is_as_near_as_that_of_kmeans(bits: int, scale: float):
    table, indices = palette(NUMBERS, bits)
    assert table.dtype == np.float16 and table.shape == (2**bits,) and indices.dtype == np.uint8
    means = KMeans(2**bits, n_init=1, random_state=0).fit(NUMBERS.reshape(-1, 1))
    error = np.linalg.norm(palettized(NUMBERS, bits) - NUMBERS)
    assert error < scale * np.sqrt(means.inertia_)


@pytest.mark.parametrize("weight", [np.zeros((3, 4), np.float32), np.float32([[1, 2], [2, -3]])])
def test_few_numbers_are_kept(weight: np.ndarray):
    np.testing.assert_array_equal(palettized(weight, 4), weight)


def test_the_layer_that_errs_most_gets_most_bits_within_the_average():
    layers = [layer("loud", 100, 1e-3), layer("quiet", 100, 1e-6), layer("large", 200, 1e-5)]
    assert assign(layers, bits=4.0) == {"loud": 4, "quiet": 4, "large": 4}
    assert assign(layers, bits=5.0) == {"loud": 8, "quiet": 4, "large": 4}
    assert assign(layers, bits=6.0) == {"loud": 8, "quiet": 4, "large": 6}


def test_a_psnr_is_met_with_few_bits():
    layers = [layer("loud", 100, 1e-3), layer("quiet", 100, 1e-6)]
    assert assign(layers, psnr=29.0) == {"loud": 4, "quiet": 4}
    assert assign(layers, psnr=40.0) == {"loud": 6, "quiet": 4}
    assert assign(layers, psnr=53.0) == {"loud": 8, "quiet": 4}
    assert assign(layers, psnr=100.0) == {"loud": 16, "quiet": 16}


def test_weights_that_a_palette_holds_take_no_more_bits():
    held = Layer("held", 100, scaled_errors(0.0, [0.0, 0.0, 0.0]))
    assert assign([held, layer("other", 100, 1e-6)], bits=8.0) == {"held": 4, "other": 8}
